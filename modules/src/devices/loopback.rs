//! A file of the tree, or a part of it, as a block device.
//!
//! The file is looked up inside the tree. `start` and `size` are counted in sectors; without `size` the device reaches
//! to the end of the file. With `partscan` the partitions on it become devices too, for mounts that name one.
//!
//! The device goes away with its last user, whatever happens to the build, and what was written to it is in the file
//! by then. osbuild keeps udev's rules off its devices by files that a rule of its own looks for; here `lock` does that
//! by the lock that udev itself honours, and nothing is left lying about.
//!
//! ```json
//! {
//!   "type": "org.osbuild.loopback",
//!   "options": { "filename": "disk.img", "start": 2048, "size": 409600, "lock": true }
//! }
//! ```

use std::path::PathBuf;
use std::time::Duration;

use osbc_module_api::loopdev::{Config, LoopDevice, MAJOR, release};
use osbc_module_api::*;
use rustix::fs::OFlags;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Device,
    name: "org.osbuild.loopback",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::LoopDevices(|_| 1)],
    schema: || Schema::same(options_schema::<Options>()),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"filename": 1}}"#,
        r#"{"options": {"filename": "disk.img", "start": "2048"}}"#,
        r#"{"options": {"filename": "disk.img", "lock": 1}}"#,
        r#"{"options": {"filename": "disk.img", "offset": 2048}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Device(open),
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Options {
    /// The file in the tree.
    filename: String,
    /// Whether to look for partitions on the device.
    #[serde(default)]
    partscan: bool,
    /// The sector of the file that the device begins with.
    #[serde(default)]
    #[schemars(with = "f64")]
    start: u64,
    /// How many sectors the device has; all up to the end of the file unless given.
    #[schemars(with = "Option<f64>")]
    size: Option<u64>,
    /// Bytes in a sector.
    #[serde(default = "usual_sector_size")]
    #[schemars(with = "f64")]
    sector_size: u32,
    /// Whether to hold an exclusive lock on the device while it is open, which keeps udev off it.
    #[serde(default)]
    lock: bool,
    /// Whether the device refuses to be written.
    #[serde(default)]
    read_only: bool,
}

fn usual_sector_size() -> u32 {
    512
}

/// How long to wait for a device to come free that could not be set up entirely.
const TIMEOUT: Duration = Duration::from_secs(30);

fn open(context: &DeviceContext) -> Result<OpenDevice, Error> {
    let options: Options = context.options()?;
    let sector = options.sector_size;
    if sector < 512 || !sector.is_power_of_two() {
        return Err(Error::failed(format!("the sector size {sector} is not a power of two of at least 512")));
    }
    let bytes = |sectors: u64| {
        let too_many = || Error::failed(format!("{sectors} sectors of {sector} bytes are more than a file can have"));
        sectors.checked_mul(u64::from(sector)).ok_or_else(too_many)
    };
    // A file that is only read is not opened for writing: in a layered tree that would copy all of it.
    let access = if options.read_only { OFlags::RDONLY } else { OFlags::RDWR };
    let file = context.tree.open_file(&options.filename, access | OFlags::NONBLOCK, 0)?;
    let length = file.metadata().map_err(Error::io("inspect", &options.filename))?.len();
    let (name, offset) = (&options.filename, bytes(options.start)?);
    if offset > length {
        return Err(Error::failed(format!("the start at byte {offset} lies beyond the end of {name} at {length}")));
    }
    // Nothing is meant by none, as for osbuild.
    let size = options.size.filter(|size| *size != 0).map(bytes).transpose()?;
    if let Some(size) = size.filter(|size| *size > length - offset) {
        let part = format!("the part of {size} bytes from byte {offset} on");
        return Err(Error::failed(format!("{part} reaches beyond the end of {name} at {length}")));
    }
    let config = Config {
        offset,
        size,
        sector_size: sector,
        partscan: options.partscan,
        read_only: options.read_only,
        lock: options.lock,
    };
    let attached = LoopDevice::attach(&file, &config, context.dev);
    let device = attached.map_err(Error::io("make a loop device of", &options.filename))?;
    let (name, minor) = (device.name(), device.minor());
    let nodes = if options.partscan { device.make_partition_nodes() } else { Ok(()) };
    let handle = device.into_fd();
    if let Err(error) = nodes {
        release(handle, TIMEOUT).map_err(Error::io("release", &name))?;
        return Err(Error::io("make the partition nodes of", name)(error));
    }
    Ok(OpenDevice {
        path: PathBuf::from(name),
        data: json!({"node": {"major": MAJOR, "minor": minor}}),
        keep: vec![handle],
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{Seek, SeekFrom, Write};
    use std::os::unix::fs::symlink;

    use osbc_fixtures::has_root;
    use tempfile::TempDir;

    use super::*;

    struct Place {
        directory: TempDir,
        tree: Tree,
    }

    impl Place {
        /// A tree with a file `disk.img` of 1 MiB.
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir(directory.path().join("dev")).unwrap();
            fs::create_dir(directory.path().join("tree")).unwrap();
            File::create(directory.path().join("tree/disk.img")).unwrap().set_len(1 << 20).unwrap();
            let tree = Tree::open(directory.path().join("tree")).unwrap();
            Self { directory, tree }
        }

        fn open(&self, options: Value) -> Result<OpenDevice, Error> {
            let dev = self.directory.path().join("dev");
            open(&DeviceContext { dev: &dev, tree: &self.tree, parent: None, options: &options })
        }

        fn node(&self, device: &OpenDevice) -> PathBuf {
            self.directory.path().join("dev").join(&device.path)
        }

        fn image(&self) -> Vec<u8> {
            fs::read(self.directory.path().join("tree/disk.img")).unwrap()
        }
    }

    fn close(device: OpenDevice) {
        for handle in device.keep {
            release(handle, TIMEOUT).unwrap();
        }
    }

    #[test]
    fn root_the_device_shows_the_named_sectors_of_the_file() {
        if !has_root() {
            return;
        }
        let place = Place::new();
        let device = place.open(json!({"filename": "/disk.img", "start": 8, "size": 16, "lock": true})).unwrap();
        let mut node = File::options().write(true).open(place.node(&device)).unwrap();
        assert_eq!(node.seek(SeekFrom::End(0)).unwrap(), 16 * 512);
        node.rewind().unwrap();
        node.write_all(b"written").unwrap();
        drop(node);
        let minor = &device.data["node"]["minor"];
        assert_eq!(device.path.to_str().unwrap(), format!("loop{minor}"));
        assert_eq!(device.data["node"]["major"], 7);
        close(device);
        assert_eq!(&place.image()[8 * 512..][..7], b"written");
    }

    #[test]
    fn root_without_a_size_or_with_none_the_device_reaches_to_the_end() {
        if !has_root() {
            return;
        }
        let place = Place::new();
        for options in [
            json!({"filename": "disk.img", "start": 1, "sector-size": 4096}),
            json!({"filename": "disk.img", "start": 1, "size": 0, "sector-size": 4096}),
        ] {
            let device = place.open(options).unwrap();
            let size = File::open(place.node(&device)).unwrap().seek(SeekFrom::End(0)).unwrap();
            assert_eq!(size, (1 << 20) - 4096);
            close(device);
        }
    }

    #[test]
    fn root_a_read_only_device_refuses_to_be_written_and_scans_for_partitions() {
        if !has_root() {
            return;
        }
        let place = Place::new();
        let device = place.open(json!({"filename": "disk.img", "read-only": true, "partscan": true})).unwrap();
        let written = File::options().write(true).open(place.node(&device)).and_then(|mut node| node.write_all(b"no"));
        assert!(written.is_err());
        close(device);
    }

    #[test]
    fn root_a_link_leads_to_the_file_inside_the_tree() {
        if !has_root() {
            return;
        }
        let place = Place::new();
        symlink("/disk.img", place.directory.path().join("tree/link")).unwrap();
        close(place.open(json!({"filename": "link"})).unwrap());
    }

    #[test]
    fn what_cannot_be_a_device_is_refused_by_name() {
        let place = Place::new();
        let refused = |options| place.open(options).map(drop).unwrap_err().to_string();
        assert!(refused(json!({"filename": "other.img"})).starts_with("cannot open /other.img:"));
        assert_eq!(
            refused(json!({"filename": "disk.img", "start": 4096})),
            "the start at byte 2097152 lies beyond the end of disk.img at 1048576"
        );
        assert_eq!(
            refused(json!({"filename": "disk.img", "start": 2040, "size": 16})),
            "the part of 8192 bytes from byte 1044480 on reaches beyond the end of disk.img at 1048576"
        );
        assert_eq!(
            refused(json!({"filename": "disk.img", "sector-size": 1000})),
            "the sector size 1000 is not a power of two of at least 512"
        );
        assert_eq!(
            refused(json!({"filename": "disk.img", "start": u64::MAX})),
            format!("{} sectors of 512 bytes are more than a file can have", u64::MAX)
        );
        assert!(fs::read_dir(place.directory.path().join("dev")).unwrap().next().is_none());
    }
}
