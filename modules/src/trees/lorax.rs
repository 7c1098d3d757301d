//! Scripts of lorax, the tool that makes Fedora's installers: commands that change a tree, run one after the other.
//!
//! The templates that scripts come from are Mako's, with Python in them; `python3` of the build root renders them.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use osbc_module_api::*;
use osbc_pytext::fnmatch::Pattern;
use regex::Regex;

use crate::trees::build_root;

/// Renders the template at the first argument with the values of the second, and prints its lines as lists of words.
const RENDER: &str = r#"
import json, shlex, sys, types
from mako.template import Template
with open(sys.argv[1], encoding="utf8") as file:
    template = Template(text=file.read(), filename=sys.argv[1])
values = json.loads(sys.argv[2])
for name in ("product", "branding"):
    values[name] = types.SimpleNamespace(**values[name])
lines = (line.strip() for line in template.render(**values).splitlines())
print(json.dumps([shlex.split(line) for line in lines if line and not line.startswith('#')]))
"#;

/// What `remove` leaves alone: `removepkg` and `removefrom` ask RPM which files there are.
const KEPT: [&str; 4] = ["/usr/lib/sysimage/rpm/", "/var/lib/rpm/", "/var/lib/yum", "/var/lib/dnf"];

/// How many bytes braces may add to a line.
const MAX_EXPANDED: usize = 4 << 20;

/// The commands of the template `path` of the build root.
///
/// # Errors
/// The build root has no Python or no Mako, or the template is not there or wrong.
pub(crate) fn render(cx: &StageContext, path: &str, values: &Value) -> Result<Vec<Vec<String>>, Error> {
    // Python would quote the whole of its program.
    std::fs::metadata(path).map_err(Error::io("read", path))?;
    let output = cx.tool("python3")?.args(["-c", RENDER, path]).arg(values.to_string()).output()?;
    let lines: Vec<Vec<String>> = serde_json::from_slice(&output)
        .map_err(|error| Error::failed(format!("{path} renders to no script: {error}")))?;
    lines.into_iter().map(|line| expanded(&line)).collect()
}

/// The words of a line, with a word for each of `{a,b}` in one.
pub(crate) fn expanded(line: &[String]) -> Result<Vec<String>, Error> {
    let mut words = Vec::new();
    // Each pair of braces multiplies what there is.
    let mut room = MAX_EXPANDED;
    let mut left: Vec<String> = line.iter().rev().cloned().collect();
    while let Some(word) = left.pop() {
        let Some((before, choices, after)) = choice(&word) else {
            words.push(word);
            continue;
        };
        for choice in choices.rsplit(',') {
            let word = format!("{before}{choice}{after}");
            room = room.checked_sub(word.len() + 1).ok_or_else(|| {
                let start: String = line.join(" ").chars().take(40).collect();
                Error::failed(format!("with the words of its braces the line `{start}…` gets too long"))
            })?;
            left.push(word);
        }
    }
    Ok(words)
}

/// The innermost `{a,b}` that ends first, and what stands before and after it.
fn choice(word: &str) -> Option<(&str, &str, &str)> {
    let right = word.find('}')?;
    let left = word[..right].rfind('{')?;
    word.contains(',').then_some((&word[..left], &word[left + 1..right], &word[right + 1..]))
}

/// A script at work.
pub(crate) struct Script<'a> {
    cx: &'a StageContext,
    root: &'a Tree,
    packages: OnceCell<Vec<String>>,
}

impl<'a> Script<'a> {
    /// One that changes the stage's tree and takes files from a build root.
    pub(crate) fn new(cx: &'a StageContext, root: &'a Tree) -> Self {
        Self { cx, root, packages: OnceCell::new() }
    }

    /// Runs all commands. Those that begin with `-` may fail.
    ///
    /// # Errors
    /// A command fails or is not known.
    pub(crate) fn run(&self, lines: &[Vec<String>]) -> Result<(), Error> {
        for line in lines {
            let words: Vec<&str> = line.iter().map(String::as_str).collect();
            let Some((name, arguments)) = words.split_first() else { continue };
            let (name, may_fail) = name.strip_prefix('-').map_or((*name, false), |name| (name, true));
            if !COMMANDS.contains(&name) {
                return Err(Error::failed(format!("the script's command `{name}` is not known")));
            }
            match self.command(name, arguments) {
                Err(error) if !may_fail => {
                    return Err(Error::failed(format!("the script's line `{}` failed: {error}", line.join(" "))));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Result<(), Error> {
        match (name, arguments) {
            ("append", [file, data]) => self.append(file, data),
            ("mkdir", directories) => {
                directories.iter().try_for_each(|directory| self.cx.tree.create_dir_all(directory, 0o777))
            }
            ("move", [from, to]) => self.rename(from, to),
            ("install", [from, to]) => self.install(from, to),
            ("remove", files) => files.iter().try_for_each(|file| self.remove(file)),
            ("replace", [pattern, by, files @ ..]) => self.replace(pattern, by, files),
            ("runcmd", [tool, arguments @ ..]) => self.run_tool(tool, arguments),
            ("symlink", [target, link]) => {
                if self.cx.tree.exists(link)? {
                    self.remove(link)?;
                }
                self.cx.tree.symlink(target, link)
            }
            ("systemctl", [verb @ ("enable" | "disable" | "mask"), units @ ..]) => self.systemctl(verb, units),
            ("removepkg", packages) => packages
                .iter()
                .try_for_each(|package| self.files_of(package)?.iter().try_for_each(|file| self.remove(file))),
            ("removefrom", [package, "--allbut", files @ ..]) => self.remove_from(package, files, true),
            ("removefrom", [package, files @ ..]) if !files.is_empty() => self.remove_from(package, files, false),
            ("removekmod", modules) => self.remove_modules(modules),
            _ => Err(Error::failed("it has the wrong arguments")),
        }
    }

    fn append(&self, file: &str, data: &str) -> Result<(), Error> {
        if let Some((directory, _)) = file.rsplit_once('/') {
            self.cx.tree.create_dir_all(directory, 0o777)?;
        }
        self.cx.tree.append(file, unescaped(data) + "\n")
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let name = from.rsplit('/').next().unwrap_or(from);
        let to = if self.cx.tree.is_dir(to)? { format!("{to}/{name}") } else { to.to_owned() };
        self.cx.tree.rename(from, to)
    }

    fn install(&self, from: &str, to: &str) -> Result<(), Error> {
        let files = glob(self.root, from)?;
        if files.is_empty() {
            return Err(Error::failed(format!("the build root has nothing at {from}")));
        }
        files
            .iter()
            .try_for_each(|file| build_root::copy_file(self.root, file, &self.cx.tree, to.trim_start_matches('/')))
    }

    fn remove(&self, pattern: &str) -> Result<(), Error> {
        if KEPT.iter().any(|kept| pattern.starts_with(kept)) {
            return Ok(());
        }
        glob(&self.cx.tree, pattern)?.iter().try_for_each(|file| self.cx.tree.remove_dir_all(file))
    }

    /// Replaces what an expression finds in the lines of files, which become new ones.
    fn replace(&self, pattern: &str, by: &str, patterns: &[&str]) -> Result<(), Error> {
        let wrong = |error| Error::failed(format!("`{pattern}` is no expression: {error}"));
        let expression = Regex::new(pattern).map_err(wrong)?;
        let group = Regex::new(r"\\(\d+)").expect("a valid expression");
        let by = group.replace_all(&by.replace('$', "$$"), "$${$1}").into_owned();
        let mut files = Vec::new();
        for pattern in patterns {
            files.extend(glob(&self.cx.tree, pattern)?);
        }
        if files.is_empty() {
            return Err(Error::failed(format!("there is no file {}", patterns.join(" "))));
        }
        for file in files {
            let text = crate::texts::text::read(&self.cx.tree, &file)?;
            let lines = text.split_inclusive('\n').map(|line| expression.replace_all(line, by.as_str()));
            let new = format!("{file}.replace");
            self.cx.tree.write(&new, lines.collect::<String>())?;
            self.cx.tree.rename(&new, &file)?;
        }
        Ok(())
    }

    /// Runs a tool of the build root in the tree, unless it would touch `/boot`, which the disc's later stages need.
    fn run_tool(&self, tool: &str, arguments: &[&str]) -> Result<(), Error> {
        if tool.contains("/boot") || arguments.iter().any(|argument| argument.contains("/boot")) {
            return Ok(());
        }
        // Which tool it is only the template says, so that no module can declare it.
        Tool::find(tool)?.args(arguments).current_dir(self.cx.tree.path_for_tools("/")?).run()
    }

    fn systemctl(&self, verb: &str, units: &[&str]) -> Result<(), Error> {
        self.cx.tree.create_dir_all("run/systemd/system", 0o777)?;
        let tree = self.cx.tree.path_for_tools("/")?.to_string_lossy().into_owned();
        for unit in units {
            match self.run_tool("systemctl", &["--root", &tree, "--no-reload", verb, unit]) {
                // A unit that is not there is no fault of the script's.
                Ok(()) | Err(Error::ToolFailed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The files, but not the directories, of the tree's packages whose names fit.
    fn files_of(&self, packages: &str) -> Result<BTreeSet<String>, Error> {
        let tree = self.cx.tree.path_for_tools("/")?;
        let ask = |arguments: &[&str]| -> Result<Vec<String>, Error> {
            let output = self.cx.tool("rpm")?.arg("--root").arg(&tree).args(arguments).output()?;
            Ok(String::from_utf8_lossy(&output).lines().map(str::to_owned).collect())
        };
        if self.packages.get().is_none() {
            let names = ask(&["-qa", "--qf=%{name}\\n"])?;
            self.packages.get_or_init(|| names);
        }
        let fits = Pattern::new(packages);
        let mut files = BTreeSet::new();
        for package in self.packages.get().into_iter().flatten().filter(|name| fits.is_match(name)) {
            for file in ask(&["-ql", package])? {
                if !self.cx.tree.is_dir(&file)? {
                    files.insert(file);
                }
            }
        }
        Ok(files)
    }

    fn remove_from(&self, packages: &str, patterns: &[&str], all_but: bool) -> Result<(), Error> {
        let matchers: Vec<Pattern> = patterns.iter().map(|pattern| Pattern::new(pattern)).collect();
        let named = |file: &String| matchers.iter().any(|matcher| matcher.is_match(file));
        let files = self.files_of(packages)?;
        files.iter().filter(|file| named(file) != all_but).try_for_each(|file| self.remove(file))
    }

    /// Removes kernel modules below some directories but for those whose paths have a word of `--allbut`.
    fn remove_modules(&self, words: &[&str]) -> Result<(), Error> {
        let (directories, kept) = match words.iter().position(|word| *word == "--allbut") {
            Some(at) if at == 0 || at + 1 == words.len() => {
                return Err(Error::failed("it needs something on both sides of `--allbut`"));
            }
            Some(at) => (&words[..at], &words[at + 1..]),
            None => (words, &[][..]),
        };
        let kept: Vec<Pattern> = kept.iter().map(|word| Pattern::new(&format!("*{word}*"))).collect();
        let mut files = Vec::new();
        for directory in directories {
            for top in glob(&self.cx.tree, &format!("/lib/modules/*/kernel/{directory}"))? {
                if self.cx.tree.is_dir(&top)? {
                    self.cx.tree.subtree(&top)?.walk("/", |path, metadata| {
                        if !metadata.is_dir() {
                            files.push(format!("{top}{}", path.display()));
                        }
                        Ok(())
                    })?;
                }
            }
        }
        files.sort();
        files.dedup();
        let gone = files.iter().filter(|file| !kept.iter().any(|word| word.is_match(file)));
        gone.into_iter().try_for_each(|file| self.cx.tree.remove_file(file))
    }
}

const COMMANDS: [&str; 12] = [
    "append",
    "mkdir",
    "move",
    "install",
    "remove",
    "replace",
    "runcmd",
    "symlink",
    "systemctl",
    "removepkg",
    "removefrom",
    "removekmod",
];

/// What is at a path with patterns in it, in the order of the names. Hidden names want to be named.
fn glob(tree: &Tree, pattern: &str) -> Result<Vec<String>, Error> {
    let mut found = vec![String::new()];
    for word in pattern.split('/').filter(|word| !word.is_empty()) {
        let mut next = Vec::new();
        for directory in &found {
            if !word.contains(['*', '?', '[']) {
                let path = format!("{directory}/{word}");
                if tree.symlink_metadata(&path).is_ok() {
                    next.push(path);
                }
            } else if tree.is_dir(format!("/{directory}"))? {
                let fits = Pattern::new(word);
                let names =
                    tree.read_dir(format!("/{directory}"))?.into_iter().filter_map(|name| name.into_string().ok());
                let names =
                    names.filter(|name| fits.is_match(name) && (word.starts_with('.') || !name.starts_with('.')));
                next.extend(names.map(|name| format!("{directory}/{name}")));
            }
        }
        found = next;
    }
    found.retain(|path| !path.is_empty());
    Ok(found)
}

/// A text in which escapes such as `\n` and `\x41` mean what they do in Python.
pub(crate) fn unescaped(text: &str) -> String {
    let escape = Regex::new(r#"\\(?:\n|[\\'"abfnrtv]|[0-7]{1,3}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})"#)
        .expect("a valid expression");
    let meaning = |found: &regex::Captures| {
        let word = &found[0][1..];
        let by_number = |digits: &str, base| u32::from_str_radix(digits, base).ok().and_then(char::from_u32);
        let character = match word.chars().next() {
            Some('\n') => return String::new(),
            Some('a') => Some('\x07'),
            Some('b') => Some('\x08'),
            Some('f') => Some('\x0c'),
            Some('n') => Some('\n'),
            Some('r') => Some('\r'),
            Some('t') => Some('\t'),
            Some('v') => Some('\x0b'),
            Some('x' | 'u' | 'U') => by_number(&word[1..], 16),
            Some('0'..='7') => by_number(word, 8),
            other => other,
        };
        character.map_or_else(|| found[0].to_owned(), String::from)
    };
    escape.replace_all(text, meaning).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_braces_are_many() {
        let words = |line: &str| expanded(&[line.to_owned()]).unwrap();
        assert_eq!(words("a{b,c{d,e}}f"), ["abf", "acdf", "abf", "acef"]);
        assert_eq!(
            (words("{a}"), words("a,b"), words("}{,")),
            (vec!["{a}".into()], vec!["a,b".into()], vec!["}{,".into()])
        );
        let error = expanded(&["{a,b}".repeat(100_000)]).unwrap_err().to_string();
        assert!(error.contains("the line `{a,b}{a,b}") && error.ends_with("gets too long"), "{error}");
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, matches, not) in [
            ("a*c", "a/bc", "a/b"),
            ("a?c", "abc", "ac"),
            ("[ab]x", "bx", "cx"),
            ("[!ab]x", "cx", "ax"),
            ("[0-9]", "5", "-"),
            ("[", "[", "x"),
            ("a.c+", "a.c+", "abcc"),
            ("[]]", "]", "["),
        ] {
            assert!(Pattern::new(pattern).is_match(matches) && !Pattern::new(pattern).is_match(not), "{pattern}");
        }
    }

    #[test]
    fn escapes_mean_what_they_do_in_python() {
        assert_eq!(unescaped(r"a\nb\t\x41\101\u00e9\\ \q"), "a\nb\tAA\u{e9}\\ \\q");
    }
}
