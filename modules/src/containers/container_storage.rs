//! Where the host keeps container images, by its `storage.conf`.

use std::fs;
use std::io;
use std::path::Path;

use osbc_module_api::*;

/// Where hosts have the file, the one that counts first.
const PLACES: [&str; 2] = ["etc/containers/storage.conf", "usr/share/containers/storage.conf"];

/// What the host has configured.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// The table `storage` as it is.
    pub(crate) storage: Value,
}

impl Configuration {
    /// Reads it from below `host`, the root of the host's file system.
    ///
    /// # Errors
    /// There is none, or it is malformed.
    pub(crate) fn read(host: &Path) -> Result<Self, Error> {
        for place in PLACES {
            let path = host.join(place);
            let text = match fs::read_to_string(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                text => text.map_err(Error::io("read", &path))?,
            };
            let malformed = |error| Error::failed(format!("{}: {error}", path.display()));
            let mut tables: Map<String, Value> = toml_edit::de::from_str(&text).map_err(malformed)?;
            let storage = tables.remove("storage").unwrap_or_else(|| json!({}));
            return Ok(Self { storage });
        }
        let places = PLACES.map(|place| format!("/{place}"));
        Err(Error::failed(format!("the host has no container storage: neither {} is there", places.join(" nor "))))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.storage.get(key).and_then(Value::as_str)
    }

    /// The directory of the storage.
    pub(crate) fn graph_root(&self) -> &str {
        self.text("graphroot").unwrap_or("/var/lib/containers/storage")
    }

    /// What tools call an image of the storage.
    pub(crate) fn reference(&self, image: &str) -> String {
        let driver = self.text("driver").unwrap_or("overlay");
        let run_root = self.text("runroot").unwrap_or("/run/containers/storage");
        format!("containers-storage:[{driver}@{}+{run_root}]{image}", self.graph_root())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<Configuration, String> {
        let host = tempfile::tempdir().unwrap();
        fs::create_dir_all(host.path().join("usr/share/containers")).unwrap();
        fs::write(host.path().join(PLACES[1]), text).unwrap();
        Configuration::read(host.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_configured_is_where_it_usually_is() {
        let usual = "containers-storage:[overlay@/var/lib/containers/storage+/run/containers/storage]app";
        assert_eq!(with("").unwrap().reference("app"), usual);
        let own =
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"/g\" # here\nrunroot = \"/r\"\n[storage.options]\na = [1]\n";
        let own = with(own).unwrap();
        assert_eq!(own.reference("app"), "containers-storage:[vfs@/g+/r]app");
        assert_eq!(own.storage["options"], json!({"a": [1]}));
    }

    #[test]
    fn what_is_missing_or_malformed_is_named() {
        assert!(with("driver").unwrap_err().contains("usr/share/containers/storage.conf: "));
        let none = Configuration::read(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(none.contains("neither /etc/containers/storage.conf nor /usr"), "{none}");
    }
}
