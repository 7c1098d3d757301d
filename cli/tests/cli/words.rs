//! Code, documents and messages use the field's words (`GLOSSARY.md`), and not those that once had a meaning of their own
//! here.

use std::path::{Path, PathBuf};

/// Words and phrases that are not used, with what to write instead. `_` separates words as blanks do.
const WORDS: [(&str, &str); 9] = [
    ("told", "reported, named, printed, passed, written"),
    ("given out", "started, assigned"),
    ("put aside", "assigned, reserved; of ids: subordinate ids"),
    ("in osbuild's place", "in drop-in mode"),
    ("in osbuild s place", "in drop-in mode"),
    ("for want of", "without; of memory: the OOM killer"),
    ("system's word", "the OS error"),
    ("folder", "directory"),
    ("folders", "directories"),
];

/// Identifiers that are not used, with the name of the concept. In comments they may be ordinary words.
const IDENTIFIERS: [(&str, &str); 22] = [
    ("ASK_AGAIN", "POLL_INTERVAL"),
    ("BLINK", "POLL_INTERVAL"),
    ("GLANCE", "POLL_INTERVAL"),
    ("PATIENCE", "TIMEOUT"),
    ("TELL", "REPORT_INTERVAL"),
    ("Attendant", "ShellUi"),
    ("Attended", "RunningStage, VmAttempt"),
    ("Course", "SerialSchedule"),
    ("Desk", "EventLoop"),
    ("Foreign", "OnDisk…, WrongArchitecture"),
    ("Keeping", "Retention"),
    ("Narrator", "SerialReplay"),
    ("OwnKey", "StageKey"),
    ("Refusal", "…Error"),
    ("Sealed", "Finalized…"),
    ("Sealing", "CommitInfo"),
    ("Surroundings", "StageMounts"),
    ("Wanting", "Exhausted"),
    ("census", "inventory"),
    ("departure", "writeback"),
    ("own_key", "stage_key"),
    ("seal", "finalize a manifest, commit a tree"),
];

/// Quotations: the end of a file's path, and the text in which a word may stand.
const QUOTED: [(&str, &str); 2] =
    [("vagrant.rs", "synced_folder"), ("docs/modules/stages/org.osbuild.vagrant.md", "synced_folder")];

#[test]
fn code_and_documents_use_the_field_s_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = texts(&root);
    assert!(files.len() > 500, "{}", files.len());
    let mut found = Vec::new();
    for path in files.iter().filter(|path| !path.ends_with("cli/tests/cli/words.rs")) {
        let text = std::fs::read_to_string(path).expect("a text");
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        let lines: Vec<String> = text.lines().map(|line| without_quotations(path, line)).collect();
        for (index, line) in lines.iter().enumerate() {
            // A phrase may go on in the next line.
            let next = lines.get(index + 1).map_or("", |next| next.trim_start_matches(['/', '!', ' ', '-']));
            let both = format!("{} {next}", line.trim_end()).to_lowercase().replace('_', " ");
            let words = WORDS.iter().filter(|(word, _)| has(&both, word, line.len()));
            let code = line.split("//").next().unwrap_or_default();
            let identifiers = IDENTIFIERS.iter().filter(|(name, _)| is_rust && has(code, name, code.len()));
            let place = path.strip_prefix(&root).expect("it is below").display();
            let problem = |(word, instead): &(&str, &str)| format!("{place}:{}: `{word}`: {instead}", index + 1);
            found.extend(words.chain(identifiers).map(problem));
        }
    }
    assert!(found.is_empty(), "write instead:\n{}", found.join("\n"));
}

/// Returns whether a text has a word that begins before `end`, and is not part of another one.
fn has(text: &str, word: &str, end: usize) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    text.match_indices(word).any(|(start, _)| {
        start < end && !text[..start].ends_with(is_part) && !text[start + word.len()..].starts_with(is_part)
    })
}

fn without_quotations(path: &Path, line: &str) -> String {
    let quoted = QUOTED.iter().filter(|(file, _)| path.ends_with(file));
    quoted.fold(line.to_owned(), |line, (_, text)| line.replace(text, ""))
}

/// All Rust and Markdown files below a directory, apart from what builds and fuzzers leave.
fn texts(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry")) {
            let (path, name) = (entry.path(), entry.file_name());
            let kind = entry.file_type().expect("a type");
            if kind.is_dir() && !name.to_string_lossy().starts_with('.') && name != "target" && name != "corpus" {
                directories.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "rs" || extension == "md")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
