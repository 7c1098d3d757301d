//! Configuration of a live system's boot menus: arguments of the kernel put in, and where coreos-installer finds them
//! again to change them.
//!
//! Knows nothing of how the image is made.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use osbc_module_api::*;
use regex::Regex;

/// What stands for the kernel's arguments.
const MARK: &str = "@@KERNEL-ARGS@@";

/// A file for developers that is in no image.
const README: &str = "README-devel.md";

/// Arguments of the installed system that a live one does not take: the unsubstituted variable of GRUB's configuration,
/// the serial console, what is always `metal`, and the deployment that dracut finds by itself.
const NOT_LIVE: [&str; 4] = ["$ignition_firstboot", "console", "ignition.platform.id", "ostree"];

/// The arguments of the live system's kernel, of those that the installed one has.
pub(crate) fn arguments(installed: &[String], volume: &str) -> String {
    let live = installed.iter().filter(|word| !NOT_LIVE.contains(&word.split('=').next().unwrap_or_default()));
    let live: Vec<&str> = live.map(String::as_str).collect();
    [live, vec![&format!("coreos.liveiso={volume}")]].concat().join(" ")
}

/// A place in a file of the image that holds arguments of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Area {
    /// The file.
    pub(crate) path: String,
    /// Where in it.
    pub(crate) offset: usize,
    /// What fills the rest.
    pub(crate) pad: &'static str,
    /// What is behind it.
    pub(crate) end: &'static str,
}

/// All such places.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Areas {
    pub(crate) files: Vec<Area>,
    /// How many bytes each has; 0 as long as there is none.
    pub(crate) size: usize,
    /// What is in each now.
    pub(crate) default: Option<String>,
}

impl Areas {
    /// Copies all of `live` to the directory of the image, with the kernel's arguments put in.
    ///
    /// # Errors
    /// A file is no text or cannot be copied, or the places differ.
    pub(crate) fn copy(live: &Tree, arguments: &str, iso: &Tree) -> Result<Self, Error> {
        let mut areas = Self::default();
        let mut command_line = String::new();
        areas.copy_directory(live, Path::new(""), arguments, iso, &mut command_line)?;
        if areas.size > 0 {
            if areas.size <= command_line.len() {
                return Err(Error::failed("there is no room for arguments of the kernel behind those there are"));
            }
            areas.default = Some(command_line.trim().to_owned());
        }
        Ok(areas)
    }

    fn copy_directory(
        &mut self,
        live: &Tree,
        directory: &Path,
        arguments: &str,
        iso: &Tree,
        command_line: &mut String,
    ) -> Result<(), Error> {
        for name in live.read_dir(Path::new("/").join(directory))? {
            let path = directory.join(&name);
            if live.symlink_metadata(&path)?.is_dir() {
                iso.create_dir_all(&path, 0o777)?;
                self.copy_directory(live, &path, arguments, iso, command_line)?;
            } else if name != README {
                let old = live.read_to_string(&path)?;
                let new = old.replace(MARK, arguments);
                if let Some(start) = old.find(MARK) {
                    self.find(&new, start, &path, command_line)?;
                }
                // With mode and times of the file that it is made of.
                tree::Copy { owners: false, ..tree::Copy::default() }.run(live, &path, iso, &path)?;
                iso.write(&path, new)?;
                let metadata = live.metadata(&path)?;
                let times = |seconds, part| (seconds, u32::try_from(part).unwrap_or_default());
                let accessed = times(metadata.atime(), metadata.atime_nsec());
                let modified = times(metadata.mtime(), metadata.mtime_nsec());
                iso.set_times(&path, tree::Times { accessed, modified })?;
            }
        }
        Ok(())
    }

    /// Notes the place that begins at `start` in a file, if it has room for more arguments.
    fn find(&mut self, text: &str, start: usize, path: &Path, command_line: &mut String) -> Result<(), Error> {
        let end = Regex::new("(#+)# COREOS_KARG_EMBED_AREA\n").expect("a valid expression");
        let Some(found) = end.captures(text) else { return Ok(()) };
        let room = found.get(1).expect("it has a group");
        let held = text.get(start..room.start()).unwrap_or_default();
        if command_line.is_empty() {
            held.clone_into(command_line);
        } else if command_line != held {
            return Err(Error::failed(format!("the arguments of the kernel differ: `{command_line}`, `{held}`")));
        }
        let size = room.end() - start;
        if self.size != 0 && self.size != size {
            return Err(Error::failed(format!("the room for arguments in {} is another size", path.display())));
        }
        self.size = size;
        self.files.push(Area { path: path.display().to_string(), offset: start, pad: "#", end: "\n" });
        Ok(())
    }

    /// Follows a file that was moved.
    pub(crate) fn moved(&mut self, from: &str, to: &str) {
        self.files.iter_mut().filter(|area| area.path == from).for_each(|area| to.clone_into(&mut area.path));
    }

    /// As coreos-installer reads it, without files that are not in the image; none if no file is left.
    ///
    /// # Errors
    /// The image cannot be read.
    pub(crate) fn document(mut self, iso: &Tree) -> Result<Option<Value>, Error> {
        let mut files = Vec::new();
        self.files.sort_by(|one, other| one.path.cmp(&other.path));
        for Area { path, offset, pad, end } in &self.files {
            if iso.exists(path)? {
                files.push(json!({"path": path, "offset": offset, "pad": pad, "end": end}));
            }
        }
        if files.is_empty() {
            return Ok(None);
        }
        let mut document = json!({ "files": files });
        if self.size > 0 {
            document["size"] = json!(self.size);
        }
        if let Some(default) = self.default {
            document["default"] = json!(default);
        }
        Ok(Some(document))
    }
}

/// What coreos-installer can do to such an image: the features, and the keys of the example of its configuration, which
/// is a YAML file of one block mapping.
///
/// # Errors
/// A line that is not indented is neither a comment nor a key.
pub(crate) fn features(example: &str) -> Result<Value, Error> {
    let mut keys = Map::new();
    for line in example.lines() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with([' ', '#', '-']) {
            continue;
        }
        let key = line.split_once(':').map(|(key, _)| key.trim_matches(['"', '\'']));
        let key = key.ok_or_else(|| Error::failed(format!("the example of a configuration has no key in: {line}")))?;
        keys.insert(key.to_owned(), json!(true));
    }
    Ok(json!({"installer-config": true, "live-initrd-network": true, "installer-config-directives": keys}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trees(files: &[(&str, &str)]) -> (tempfile::TempDir, Tree, Tree) {
        let directory = tempfile::tempdir().unwrap();
        for name in ["live", "iso"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let live = Tree::open(directory.path().join("live")).unwrap();
        for (path, text) in files {
            live.create_dir_all(Path::new(path).parent().unwrap(), 0o755).unwrap();
            live.write(path, text).unwrap();
        }
        let iso = Tree::open(directory.path().join("iso")).unwrap();
        (directory, live, iso)
    }

    #[test]
    fn a_live_system_takes_some_arguments() {
        let installed =
            ["$ignition_firstboot", "ostree=/x", "console=ttyS0", "rw", "mitigations=auto"].map(str::to_owned);
        assert_eq!(arguments(&installed, "fedora-1"), "rw mitigations=auto coreos.liveiso=fedora-1");
    }

    #[test]
    fn arguments_are_put_in_and_their_place_is_noted() {
        let grub = "linux /vmlinuz @@KERNEL-ARGS@@ ################ COREOS_KARG_EMBED_AREA\nrest\n";
        let files = [
            ("EFI/fedora/grub.cfg", grub),
            ("isolinux/isolinux.cfg", grub),
            ("zipl.prm", "@@KERNEL-ARGS@@"),
            (README, "x"),
            ("a", "plain"),
        ];
        let (_directory, live, iso) = trees(&files);
        live.chmod("a", 0o600).unwrap();
        let mut areas = Areas::copy(&live, "rw quiet", &iso).unwrap();
        let text = iso.read_to_string("EFI/fedora/grub.cfg").unwrap();
        assert_eq!(text, "linux /vmlinuz rw quiet ################ COREOS_KARG_EMBED_AREA\nrest\n");
        assert_eq!(iso.read_to_string("zipl.prm").unwrap(), "rw quiet");
        assert!(!iso.exists(README).unwrap());
        assert_eq!(iso.metadata("a").unwrap().mode() & 0o777, 0o600);
        areas.moved("EFI/fedora/grub.cfg", "EFI/redhat/grub.cfg");
        iso.remove_file("isolinux/isolinux.cfg").unwrap();
        iso.create_dir_all("EFI/redhat", 0o755).unwrap();
        iso.write("EFI/redhat/grub.cfg", "").unwrap();
        let area = json!({"path": "EFI/redhat/grub.cfg", "offset": 15, "pad": "#", "end": "\n"});
        let document = areas.document(&iso).unwrap().unwrap();
        assert_eq!(document, json!({"files": [area], "size": 24, "default": "rw quiet"}));
    }

    #[test]
    fn places_that_differ_are_refused() {
        let one = ("a", "@@KERNEL-ARGS@@ #### COREOS_KARG_EMBED_AREA\n");
        for other in
            ["@@KERNEL-ARGS@@ ##### COREOS_KARG_EMBED_AREA\n", "@@KERNEL-ARGS@@ x#### COREOS_KARG_EMBED_AREA\n"]
        {
            let (_directory, live, iso) = trees(&[one, ("b", other)]);
            assert!(Areas::copy(&live, "rw", &iso).is_err(), "{other}");
        }
        let (_directory, live, iso) = trees(&[("a", "nothing")]);
        let areas = Areas::copy(&live, "rw", &iso).unwrap();
        assert_eq!(areas.document(&iso).unwrap(), None);
    }

    #[test]
    fn features_come_from_an_example() {
        let text = "# What it is\ndest-device: /dev/sda\n\"stream\": x\nfetch-retries: 1\nappend-karg:\n  - a\n- b\n";
        let keys = json!({"dest-device": true, "stream": true, "fetch-retries": true, "append-karg": true});
        assert_eq!(features(text).unwrap()["installer-config-directives"], keys);
        assert!(features("text\n").is_err());
    }
}
