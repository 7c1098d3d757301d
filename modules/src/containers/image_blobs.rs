//! The files of a container image, by the descriptors that name them.
//!
//! Whoever made the image may be hostile: only regular files count, documents have a size limit, and a blob has the
//! digest and size that its descriptor says.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use osbc_module_api::*;

use crate::downloads::checksum::Checksum;

/// The largest document that is read, in bytes: what registries and skopeo take as well.
pub(crate) const MAX_DOCUMENT: u64 = 4 << 20;

/// Digest algorithms of descriptors, with the number of their digits.
const ALGORITHMS: [(&str, usize); 2] = [("sha256", 64), ("sha512", 128)];

/// Where an image has its blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrangement {
    /// The directory has nothing else, and blobs are called after the digits of their digests: skopeo's `dir`.
    Flat,
    /// In `blobs/ALGORITHM/DIGITS`: the OCI image layout. It was unpacked, so no link in it leads to anything outside.
    Layout,
}

/// The files of one image.
#[derive(Debug)]
pub(crate) struct Blobs {
    root: PathBuf,
    arrangement: Arrangement,
}

impl Blobs {
    /// Those in a directory.
    ///
    /// # Errors
    /// The directory is not there.
    pub(crate) fn new(root: &Path, arrangement: Arrangement) -> Result<Self, Error> {
        let root = fs::canonicalize(root).map_err(Error::io("find", root))?;
        Ok(Self { root, arrangement })
    }

    /// Reads the document of that name.
    ///
    /// # Errors
    /// It is no regular file, too large, or no JSON.
    pub(crate) fn document(&self, name: &str) -> Result<Value, Error> {
        let path = self.file(Path::new(name))?;
        let text = outside::read(&path, MAX_DOCUMENT).map_err(Error::io("read", &path))?;
        serde_json::from_slice(&text).map_err(|error| Error::failed(format!("{name} is no JSON: {error}")))
    }

    /// Reads the document that a descriptor names.
    ///
    /// # Errors
    /// As for [`Blobs::blob`] and [`Blobs::document`].
    pub(crate) fn document_of(&self, descriptor: &Value) -> Result<Value, Error> {
        let name = self.place(descriptor)?;
        // Before its digest, which takes as long as it is large.
        let document = self.document(&name)?;
        self.blob(descriptor)?;
        Ok(document)
    }

    /// Returns where the blob lies that a descriptor names, checked.
    ///
    /// # Errors
    /// It is no regular file, or has another size or digest than its descriptor says.
    pub(crate) fn blob(&self, descriptor: &Value) -> Result<PathBuf, Error> {
        let name = self.place(descriptor)?;
        let path = self.file(Path::new(&name))?;
        let mut file = File::open(&path).map_err(Error::io("open", &path))?;
        let size = file.metadata().map_err(Error::io("read", &path))?.len();
        if let Some(said) = descriptor.get("size")
            && said.as_u64() != Some(size)
        {
            return Err(Error::failed(format!("the blob {name} has {size} bytes, not the {said} of its descriptor")));
        }
        let digest = Checksum::parse(digest_of(descriptor)?)?;
        let mut hasher = digest.hasher();
        hasher.update_from(&mut file).map_err(Error::io("read", &path))?;
        digest.check(&hasher).map_err(|found| Error::failed(format!("the blob {name} has the digest {found}")))?;
        Ok(path)
    }

    fn place(&self, descriptor: &Value) -> Result<String, Error> {
        let digest = digest_of(descriptor)?;
        Ok(match self.arrangement {
            Arrangement::Flat => digest.split_once(':').map_or(digest, |(_, digits)| digits).to_owned(),
            Arrangement::Layout => format!("blobs/{}", digest.replacen(':', "/", 1)),
        })
    }

    /// Returns the path of a regular file of the image.
    fn file(&self, name: &Path) -> Result<PathBuf, Error> {
        let path = fs::canonicalize(self.root.join(name)).map_err(Error::io("find", name))?;
        if self.arrangement == Arrangement::Layout && !path.starts_with(&self.root) {
            return Err(Error::failed(format!("{} leads out of the image", name.display())));
        }
        if !fs::metadata(&path).map_err(Error::io("look at", name))?.is_file() {
            return Err(Error::failed(format!("{} is no regular file", name.display())));
        }
        Ok(path)
    }
}

/// The digest of a descriptor, which becomes a part of a path: nothing but an algorithm and digits.
fn digest_of(descriptor: &Value) -> Result<&str, Error> {
    let digest = descriptor.get("digest").and_then(Value::as_str).unwrap_or_default();
    let known = digest.split_once(':').is_some_and(|(algorithm, digits)| {
        let hex = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        hex && ALGORITHMS.contains(&(algorithm, digits.len()))
    });
    known.then_some(digest).ok_or_else(|| {
        Error::failed(format!("it names a blob by {}, which is no sha256 or sha512 digest", json!(digest)))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use osbc_fixtures::has_tool;

    use super::*;
    use crate::containers::registry_image::digest;

    /// An empty layout, and the place of the blob of that digest.
    fn layout() -> (tempfile::TempDir, Blobs) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("blobs/sha256")).unwrap();
        let blobs = Blobs::new(directory.path(), Arrangement::Layout).unwrap();
        (directory, blobs)
    }

    fn put(blobs: &Blobs, descriptor: &Value, content: &[u8]) {
        fs::write(blobs.root.join(blobs.place(descriptor).unwrap()), content).unwrap();
    }

    #[test]
    fn a_blob_is_what_its_descriptor_says() {
        let (_directory, blobs) = layout();
        let descriptor = json!({"digest": digest(b"{}"), "size": 2});
        put(&blobs, &descriptor, b"{}");
        assert_eq!(blobs.document_of(&descriptor).unwrap(), json!({}));
        let refused = |descriptor: &Value| blobs.blob(descriptor).unwrap_err().to_string();
        let longer = json!({"digest": digest(b"{}"), "size": 3});
        assert!(refused(&longer).ends_with("has 2 bytes, not the 3 of its descriptor"));
        let other = json!({"digest": digest(b"other")});
        put(&blobs, &other, b"{}");
        assert!(refused(&other).ends_with(&format!("has the digest {}", digest(b"{}"))), "{}", refused(&other));
    }

    #[test]
    fn what_is_no_regular_file_of_the_image_is_refused_by_name() {
        let (directory, blobs) = layout();
        let refused = || blobs.document("index.json").unwrap_err().to_string();
        let place = directory.path().join("index.json");
        assert!(refused().starts_with("cannot find index.json: "));
        symlink("/dev/zero", &place).unwrap();
        assert_eq!(refused(), "index.json leads out of the image");
        fs::remove_file(&place).unwrap();
        symlink("blobs", &place).unwrap();
        assert_eq!(refused(), "index.json is no regular file");
        fs::remove_file(&place).unwrap();
        File::create(&place).unwrap().set_len(MAX_DOCUMENT + 1).unwrap();
        assert!(refused().ends_with("it has 4194305 bytes; more than 4194304 are not read"));
        fs::remove_file(&place).unwrap();
        if has_tool("mkfifo") {
            assert!(std::process::Command::new("mkfifo").arg(&place).status().unwrap().success());
            assert_eq!(refused(), "index.json is no regular file");
        }
    }

    #[test]
    fn blobs_are_named_by_digests_alone() {
        assert!(digest_of(&json!({"digest": digest(b"")})).is_ok());
        for digest in
            ["", "ab12", "sha256:", "sha256:ab12", "sha256:../x", "a/b:c", "md5:5d41402abc4b2a76b9719d911017c592"]
        {
            assert!(digest_of(&json!({ "digest": digest })).is_err(), "{digest}");
        }
    }
}
