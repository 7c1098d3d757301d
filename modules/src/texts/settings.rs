//! Files of one setting a line (`key value`, `key=value`), changed line by line.

use osbc_module_api::*;

use crate::texts::text;

/// How a file spells a setting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    /// The key and the value of a line with its end, if it is a setting.
    pub(crate) split: fn(&str) -> Option<(&str, &str)>,
    /// What stands between them in a new line.
    pub(crate) between: &'static str,
    /// Whether keys are the same in any case.
    pub(crate) ignores_case: bool,
}

/// Changes the file `path`: the first line of each key gets the new value, keys that have none are added at the end.
/// All other lines stay.
///
/// The file is replaced by a new one of the same mode, a link by a file, as osbuild does. A last line without an end
/// gets one before anything is added behind it; osbuild adds to the line itself.
///
/// # Errors
/// It is not there, is no text, or cannot be replaced.
pub(crate) fn change(tree: &Tree, path: &str, format: Format, mut settings: Vec<(&str, String)>) -> Result<(), Error> {
    let old = text::read(tree, path)?;
    let mut new = String::with_capacity(old.len());
    for line in old.split_inclusive('\n') {
        let same = |key: &str, own: &str| if format.ignores_case { key.eq_ignore_ascii_case(own) } else { key == own };
        let setting = (format.split)(line).and_then(|(key, value)| {
            let at = settings.iter().position(|(own, _)| same(key, own))?;
            Some((key, value, settings.remove(at).1))
        });
        match setting {
            Some((key, value, wanted)) if value != wanted => {
                new.extend([key, format.between, &wanted, "\n"]);
            }
            _ => new.push_str(line),
        }
    }
    if !settings.is_empty() && !new.is_empty() && !new.ends_with('\n') {
        new.push('\n');
    }
    for (key, value) in settings {
        new.extend([key, format.between, &value, "\n"]);
    }
    let mode = std::os::unix::fs::MetadataExt::mode(&tree.metadata(path)?);
    tree.replace(path, new, mode & 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EQUALS: Format = Format { split: |line| line.split_once('='), between: "=", ignores_case: true };

    fn changed(old: &str, settings: Vec<(&str, String)>) -> String {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        tree.write("file", old).unwrap();
        tree.chmod("file", 0o640).unwrap();
        change(&tree, "file", EQUALS, settings).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&tree.metadata("file").unwrap()) & 0o7777, 0o640);
        tree.read_to_string("file").unwrap()
    }

    #[test]
    fn the_first_line_of_a_key_is_changed_and_missing_ones_are_added() {
        let old = "# top\nKey=1\nkey=2\n\nother=3";
        let new = changed(old, vec![("key", "X".to_owned()), ("New", "Y".to_owned())]);
        assert_eq!(new, "# top\nKey=X\nkey=2\n\nother=3\nNew=Y\n");
        assert_eq!(changed(old, vec![]), old);
        assert_eq!(changed("", vec![("a", "b".to_owned())]), "a=b\n");
    }
}
