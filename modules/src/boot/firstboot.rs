//! What `systemd-firstboot` does, for the stages that osbuild has call it: which values it takes, how it writes them.
//!
//! Its habits changed over time and differ on Debian. Those of the build root count, since there osbuild runs it: they
//! are read off the program's own words. Where it is missing, osbuild's stages fail and ours keep to the plain habits.

use std::path::{Path, PathBuf};

use osbc_module_api::{Error, outside};

use crate::texts::shell;

/// Where a build root keeps keyboard maps.
const KEYMAPS: [&str; 3] = ["/usr/share/keymaps", "/usr/share/kbd/keymaps", "/usr/lib/kbd/keymaps"];

/// The program whose habits count.
pub(crate) const PROGRAM: &str = "/usr/bin/systemd-firstboot";

/// The X11 keyboard settings of console keymaps.
const MODELS: &str = "/usr/share/systemd/kbd-model-map";

/// A build root, asked for what concerns first boots.
#[derive(Debug)]
pub(crate) struct BuildRoot {
    root: PathBuf,
    program: Vec<u8>,
}

impl BuildRoot {
    /// The one that the stage runs in.
    pub(crate) fn here() -> Self {
        Self::at(Path::new("/"))
    }

    /// The one in a directory.
    pub(crate) fn at(root: &Path) -> Self {
        let program = outside::read(below(root, PROGRAM), outside::WHOLE).unwrap_or_default();
        Self { root: root.to_owned(), program }
    }

    fn says(&self, word: &str) -> bool {
        self.program.windows(word.len()).any(|window| window == word.as_bytes())
    }

    /// Where the locale is configured.
    pub(crate) fn locale_file(&self) -> &'static str {
        if self.says("/etc/default/locale\0") { "etc/default/locale" } else { "etc/locale.conf" }
    }

    /// Whether a time zone is known.
    pub(crate) fn has_timezone(&self, zone: &str) -> bool {
        let file = self.root.join("usr/share/zoneinfo").join(zone);
        zone == "UTC" || outside::read(file, outside::WHOLE).is_ok_and(|content| content.starts_with(b"TZif"))
    }

    /// The X11 keyboard settings that go with a console keymap, by the name of their variable; none where
    /// `systemd-firstboot` knows nothing of them yet, as up to version 255.
    ///
    /// # Errors
    /// It knows of them and the table of layouts is missing.
    pub(crate) fn x11_of(&self, keymap: &str) -> Result<Vec<(&'static str, String)>, Error> {
        if !self.says("vconsole_convert_to_x11") && !self.says("/kbd-model-map") {
            return Ok(Vec::new());
        }
        let path = below(&self.root, MODELS);
        let table = outside::read(&path, outside::WHOLE).map_err(Error::io("read", &path))?;
        let table = String::from_utf8_lossy(&table);
        let rows = table.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let mut rows = rows.map(|line| line.split_whitespace().collect::<Vec<_>>()).filter(|row| row.len() >= 5);
        let values = match rows.find(|row| row[0] == keymap) {
            Some(row) => [row[1], row[2], row[3], row[4]].map(|value| if value == "-" { "" } else { value }),
            None => {
                let (layout, variant) = keymap.split_once('-').unwrap_or((keymap, ""));
                let variant = if self.has_converted(keymap) { variant } else { "" };
                if !variant.is_empty() || self.has_converted(layout) {
                    [layout, "microsoftpro", variant, "terminate:ctrl_alt_bksp"]
                } else {
                    [""; 4]
                }
            }
        };
        let named = ["XKBLAYOUT", "XKBMODEL", "XKBVARIANT", "XKBOPTIONS"].into_iter().zip(values.map(str::to_owned));
        Ok(named.filter(|(_, value)| !value.is_empty()).collect())
    }

    /// Whether there is a console keymap that was made from an X11 layout.
    fn has_converted(&self, keymap: &str) -> bool {
        converted(keymap).any(|file| below(&self.root, &file).exists())
    }
}

/// Returns what of a build root decides on the settings of a console keymap.
pub(crate) fn files_of_keymap(keymap: &str) -> Vec<String> {
    let layout = keymap.split_once('-').map_or(keymap, |(layout, _)| layout);
    [PROGRAM, MODELS].map(str::to_owned).into_iter().chain(converted(keymap)).chain(converted(layout)).collect()
}

/// Where a build root may have a console keymap that was made from an X11 layout.
fn converted(keymap: &str) -> impl Iterator<Item = String> {
    KEYMAPS.iter().flat_map(move |directory| ["", ".gz"].map(|end| format!("{directory}/xkb/{keymap}.map{end}")))
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Whether a text may be the name of a locale or a keymap.
pub(crate) fn is_name(text: &str) -> bool {
    let safe = |c: char| c >= ' ' && !matches!(c, '"' | '\'' | '\\' | '\x7f' | '/');
    !text.is_empty() && text != "." && text != ".." && text.len() < 128 && text.chars().all(safe)
}

/// The line that sets a variable in a file of such lines, quoted where a shell needs it.
pub(crate) fn assignment(name: &str, value: &str) -> String {
    let needs_quotes = |c: char| c.is_control() || " \t\n\r\"\\`$*?['()<>|&;!".contains(c);
    if !value.contains(needs_quotes) {
        return format!("{name}={value}\n");
    }
    format!("{name}={}\n", shell::quoted(value))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn values_are_quoted_as_by_the_tool() {
        for (value, line) in [
            ("en_US.UTF-8", "A=en_US.UTF-8\n"),
            ("a b", "A=\"a b\"\n"),
            ("a$b", "A=\"a\\$b\"\n"),
            ("a*b", "A=\"a*b\"\n"),
            ("a#b", "A=a#b\n"),
            ("~a=ü", "A=~a=ü\n"),
        ] {
            assert_eq!(assignment("A", value), line);
        }
    }

    #[test]
    fn names_are_file_names_without_quotes_and_control_characters() {
        for name in ["C", "en_US.UTF-8", "de_DE@euro", "a b", "ü"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "x\"y", "a'b", "a\\b", "a\nb", "a\u{7f}", &"a".repeat(128)] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn a_zone_is_a_regular_file() {
        let root = tempfile::tempdir().unwrap();
        let zones = root.path().join("usr/share/zoneinfo");
        fs::create_dir_all(&zones).unwrap();
        fs::write(zones.join("Here"), "TZif2").unwrap();
        fs::write(zones.join("Text"), "no zone").unwrap();
        std::os::unix::fs::symlink("/dev/zero", zones.join("Endless")).unwrap();
        nix::unistd::mkfifo(&zones.join("Waiting"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let known = |zone: &&str| BuildRoot::at(root.path()).has_timezone(zone);
        let zones = ["UTC", "Here", "Text", "Endless", "Waiting", "None"];
        assert_eq!(zones.into_iter().filter(known).collect::<Vec<_>>(), ["UTC", "Here"]);
    }

    #[test]
    fn newer_tools_know_the_x11_layout_of_a_keymap() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["usr/bin", "usr/share/systemd", "usr/lib/kbd/keymaps/xkb"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        let write = |path: &str, content: &str| fs::write(root.path().join(path), content).unwrap();
        write("usr/bin/systemd-firstboot", "\0vconsole_convert_to_x11\0");
        assert!(BuildRoot::at(root.path()).x11_of("us").is_err());
        write(
            "usr/share/systemd/kbd-model-map",
            "# c x m v o\nus  us pc105+inet - terminate:x\nsg ch pc105 de_nodeadkeys t\n",
        );
        write("usr/lib/kbd/keymaps/xkb/es.map.gz", "");
        write("usr/lib/kbd/keymaps/xkb/es-dvorak.map.gz", "");
        let x11 = |keymap: &str| {
            let values = BuildRoot::at(root.path()).x11_of(keymap).unwrap();
            values.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(x11("us"), "XKBLAYOUT=us XKBMODEL=pc105+inet XKBOPTIONS=terminate:x");
        assert_eq!(x11("sg"), "XKBLAYOUT=ch XKBMODEL=pc105 XKBVARIANT=de_nodeadkeys XKBOPTIONS=t");
        assert_eq!(
            x11("es-dvorak"),
            "XKBLAYOUT=es XKBMODEL=microsoftpro XKBVARIANT=dvorak XKBOPTIONS=terminate:ctrl_alt_bksp"
        );
        assert_eq!(x11("es-other"), "XKBLAYOUT=es XKBMODEL=microsoftpro XKBOPTIONS=terminate:ctrl_alt_bksp");
        assert_eq!(x11("unknown"), "");
        write("usr/bin/systemd-firstboot", "an older one");
        assert_eq!(x11("us"), "");
    }

    #[test]
    fn the_locale_is_where_the_tool_has_it() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        assert_eq!(BuildRoot::at(root.path()).locale_file(), "etc/locale.conf");
        fs::write(root.path().join("usr/bin/systemd-firstboot"), "x\0/etc/default/locale\0/etc/locale.conf\0").unwrap();
        assert_eq!(BuildRoot::at(root.path()).locale_file(), "etc/default/locale");
    }
}
