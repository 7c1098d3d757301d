//! Boot entries as the Boot Loader Specification has them: files in `loader/entries` of a boot directory.

use osbc_module_api::{Error, Tree};

use osbc_pytext::text::{is_line_end, lines};

use crate::texts::one_line;

/// The paths of the entries of a boot directory; none if it has no directory for them.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn entries(tree: &Tree, boot: &str) -> Result<Vec<String>, Error> {
    let directory = format!("{}/loader/entries", boot.trim_end_matches('/'));
    if !tree.is_dir(&directory)? {
        return Ok(Vec::new());
    }
    let names = tree.read_dir(&directory)?.into_iter().filter_map(|name| name.into_string().ok());
    let entries = names.filter(|name| name.ends_with(".conf") && !name.starts_with('.'));
    Ok(entries.map(|name| format!("{directory}/{name}")).collect())
}

/// Appends options of the kernel to all entries of a boot directory: to the first line with options, which is added
/// where there is none.
///
/// Every entry becomes a new file.
///
/// # Errors
/// There is no entry, one cannot be read or written, or an option has a line break.
pub(crate) fn append_options(tree: &Tree, boot: &str, options: &[String]) -> Result<(), Error> {
    let entries = entries(tree, boot)?;
    if entries.is_empty() {
        let directory = format!("{}/loader/entries", boot.trim_end_matches('/'));
        return Err(Error::failed(format!("{directory} has no boot entry")));
    }
    options.iter().try_for_each(|option| one_line::line("options", option).map(drop))?;
    let options = options.join(" ");
    for entry in entries {
        let text = with_options(&tree.read_to_string(&entry)?, &options);
        let beside = format!("{entry}.tmp");
        tree.write(&beside, text)?;
        tree.rename(&beside, &entry)?;
    }
    Ok(())
}

fn with_options(entry: &str, options: &str) -> String {
    let mut text = String::new();
    let mut found = false;
    for line in lines(entry) {
        text += line.trim_end_matches(is_line_end);
        if !found && line.starts_with("options ") {
            text += &format!(" {options}");
            found = true;
        }
        text.push('\n');
    }
    if !found {
        text += &format!("options {options}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_follow_those_of_the_first_such_line() {
        let entry = "title A\r\noptions root=x ro\noptions $tuned";
        assert_eq!(with_options(entry, "a b"), "title A\noptions root=x ro a b\noptions $tuned\n");
        assert_eq!(with_options("title A\n", "a"), "title A\noptions a\n");
        assert_eq!(with_options("options\n", "a"), "options\noptions a\n");
    }

    #[test]
    fn entries_are_visible_files_of_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        assert!(
            append_options(&tree, "/boot", &[]).unwrap_err().to_string().starts_with("/boot/loader/entries has no")
        );
        tree.create_dir_all("boot/loader/entries", 0o755).unwrap();
        for name in ["b.conf", "a.conf", ".c.conf", "d.conf.bak"] {
            tree.write(format!("boot/loader/entries/{name}"), "options x\n").unwrap();
        }
        let expected = ["/boot/loader/entries/a.conf", "/boot/loader/entries/b.conf"];
        assert_eq!(entries(&tree, "/boot/").unwrap(), expected);
        append_options(&tree, "/boot", &["y".to_owned()]).unwrap();
        assert_eq!(tree.read_to_string(expected[1]).unwrap(), "options x y\n");
        assert_eq!(tree.read_to_string("boot/loader/entries/.c.conf").unwrap(), "options x\n");
        let error = append_options(&tree, "/boot", &["y\ninitrd /z".to_owned()]).unwrap_err().to_string();
        assert!(error.starts_with("the option `options` has a line break"), "{error}");
    }
}
