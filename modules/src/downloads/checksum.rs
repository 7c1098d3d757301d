//! The checksums by which sources name their items: `ALGORITHM:HEX`. Knows nothing of where the bytes come from.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use osbc_ir::hex;
use osbc_module_api::Error;
use sha2::Digest;

/// How the schemas of sources describe a checksum.
pub(crate) const PATTERN: &str = "(md5|sha1|sha256|sha384|sha512):[0-9a-f]{32,128}";

/// What the bytes of an item must give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checksum {
    algorithm: Algorithm,
    hex: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Md5,
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    const ALL: [Algorithm; 5] =
        [Algorithm::Md5, Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512];

    fn name(self) -> &'static str {
        match self {
            Algorithm::Md5 => "md5",
            Algorithm::Sha1 => "sha1",
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha384 => "sha384",
            Algorithm::Sha512 => "sha512",
        }
    }
}

impl Checksum {
    /// Reads a checksum as manifests write it.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let known = text.split_once(':').and_then(|(name, hex)| {
            let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)?;
            Some(Self { algorithm, hex: hex.to_owned() })
        });
        known.ok_or_else(|| {
            Error::failed(format!(
                "`{text}` is not a checksum; it begins with md5:, sha1:, sha256:, sha384: or sha512:"
            ))
        })
    }

    /// A hasher of its algorithm that has seen nothing.
    pub(crate) fn hasher(&self) -> Hasher {
        match self.algorithm {
            Algorithm::Md5 => Hasher::Md5(md5::Md5::new()),
            Algorithm::Sha1 => Hasher::Sha1(sha1::Sha1::new()),
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha384 => Hasher::Sha384(sha2::Sha384::new()),
            Algorithm::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
        }
    }

    /// Whether the bytes that the hasher has seen are the right ones; else what their checksum is.
    pub(crate) fn check(&self, hasher: &Hasher) -> Result<(), Checksum> {
        let found = Checksum { algorithm: self.algorithm, hex: hasher.clone().finish() };
        if found == *self { Ok(()) } else { Err(found) }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

/// The SHA-256 of all that is left of `source`, in hexadecimal digits.
///
/// # Errors
/// It cannot be read.
pub(crate) fn sha256(source: &mut impl Read) -> io::Result<String> {
    let mut hasher = Hasher::Sha256(sha2::Sha256::new());
    hasher.update_from(source)?;
    Ok(hasher.finish())
}

/// Whether a file is the item of that name.
///
/// # Errors
/// The checksum differs or cannot be computed; the message says which.
pub fn check_file(name: &str, path: &Path) -> Result<(), String> {
    let checksum = Checksum::parse(name).map_err(|error| error.to_string())?;
    let mut hasher = checksum.hasher();
    let read = File::open(path).and_then(|mut file| hasher.update_from(&mut file));
    read.map_err(|error| format!("it cannot be read: {error}"))?;
    checksum.check(&hasher).map_err(|found| format!("its checksum is {found}"))
}

/// A checksum in the making.
#[derive(Debug, Clone)]
pub(crate) enum Hasher {
    Md5(md5::Md5),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Takes the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Md5(hasher) => hasher.update(bytes),
            Hasher::Sha1(hasher) => hasher.update(bytes),
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha384(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// Takes all that is left of `source`, and returns how many bytes that were.
    pub(crate) fn update_from(&mut self, source: &mut impl Read) -> io::Result<u64> {
        let mut buffer = vec![0; 128 << 10];
        let mut seen = 0;
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return Ok(seen),
                Ok(length) => {
                    self.update(&buffer[..length]);
                    seen += length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn finish(self) -> String {
        match self {
            Hasher::Md5(hasher) => hex(&hasher.finalize()),
            Hasher::Sha1(hasher) => hex(&hasher.finalize()),
            Hasher::Sha256(hasher) => hex(&hasher.finalize()),
            Hasher::Sha384(hasher) => hex(&hasher.finalize()),
            Hasher::Sha512(hasher) => hex(&hasher.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the five bytes `hello`, as the coreutils give them.
    const HELLO: [&str; 5] = [
        "md5:5d41402abc4b2a76b9719d911017c592",
        "sha1:aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d",
        "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        "sha384:59e1748777448c69de6b800d7a33bbfb9ff1b463e44354c3553bcdb9c666fa90125a3c79f90397bdf5f6a13de828684f",
        "sha512:9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca72323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043",
    ];

    #[test]
    fn all_five_kinds_are_computed_and_wrong_ones_refused() {
        for text in HELLO {
            let checksum = Checksum::parse(text).unwrap();
            assert_eq!(checksum.to_string(), text);
            let mut hasher = checksum.hasher();
            assert_eq!(hasher.update_from(&mut &b"hel"[..]).unwrap(), 3);
            assert!(checksum.check(&hasher).is_err());
            hasher.update(b"lo");
            assert_eq!(checksum.check(&hasher), Ok(()));
            hasher.update(b"!");
            assert!(checksum.check(&hasher).is_err());
        }
    }

    #[test]
    fn a_file_is_compared_with_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("item");
        std::fs::write(&path, "hello").unwrap();
        assert_eq!(check_file(HELLO[2], &path), Ok(()));
        std::fs::write(&path, "hellp").unwrap();
        assert!(check_file(HELLO[2], &path).unwrap_err().starts_with("its checksum is sha256:"));
        assert!(check_file("half", &path).unwrap_err().contains("not a checksum"));
        assert!(check_file(HELLO[2], directory.path()).unwrap_err().starts_with("it cannot be read: "));
    }

    #[test]
    fn other_kinds_are_refused_by_name() {
        for text in ["crc32:00", "sha256", "", "xsha256:00"] {
            let refusal = Checksum::parse(text).unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("`{text}` is not a checksum")), "{refusal}");
        }
    }
}
