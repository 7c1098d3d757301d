//! Text files of a tree as Python's text mode reads them.

use osbc_module_api::*;

/// What is in the text file `path`, with `\n` at the end of each line whatever the file has there.
///
/// # Errors
/// It cannot be read or is not UTF-8.
pub(crate) fn read(tree: &Tree, path: &str) -> Result<String, Error> {
    let text = tree.read_to_string(path)?;
    Ok(if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text })
}

/// As [`read`]; none if there is no such file.
///
/// # Errors
/// It is there and cannot be read or is not UTF-8.
pub(crate) fn read_if_there(tree: &Tree, path: &str) -> Result<Option<String>, Error> {
    if tree.exists(path)? { read(tree, path).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_alike() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        tree.write("a", "1\r\n2\r3\n").unwrap();
        assert_eq!(read(&tree, "a").unwrap(), "1\n2\n3\n");
        assert_eq!(read_if_there(&tree, "b").unwrap(), None);
    }
}
