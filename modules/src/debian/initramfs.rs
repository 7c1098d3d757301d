//! Making each initramfs once.
//!
//! Debian's packages have it made by their kernel and again by whatever has a part in it, though the last one is as
//! good as any: while packages are configured, a script that takes notes lies over `update-initramfs`, and what it
//! noted is done afterwards. Until then an empty file stands for the image, since boot loaders look for it.

use std::collections::BTreeSet;
use std::path::Path;

use osbc_module_api::*;

use crate::debian::database::read_text;
use crate::trees::chroot::Program;

/// The program that makes them.
pub(crate) const PROGRAM: &str = "update-initramfs";

const PLACE: &str = "usr/sbin/update-initramfs";
const SCRIPT: &str = "var/lib/dpkg/osbc-update-initramfs";
const NOTES: &str = "var/lib/dpkg/osbc-initramfs";
const DIRECTORY: &str = "boot";
const PREFIX: &str = "initrd.img-";

const TAKES_NOTES: &str = r#"#!/bin/sh
echo "$*" >>/var/lib/dpkg/osbc-initramfs
create= version=all directory=/boot
while getopts k:cudvtb: option; do
	case $option in
	c) create=yes ;;
	k) version=$OPTARG ;;
	b) directory=$OPTARG ;;
	esac
done
image=$directory/initrd.img-$version
if [ "$create" ] && [ "$version" != all ] && [ ! -e "$image" ]; then
	: >"$image"
fi
"#;

/// The script in place of the program, and what it noted.
pub(crate) struct Deferred<'a> {
    tree: &'a Tree,
}

impl<'a> Deferred<'a> {
    /// Puts the script into a tree that has dpkg's directories.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn prepare(tree: &'a Tree) -> Result<Self, Error> {
        tree.replace(SCRIPT, TAKES_NOTES, 0o755)?;
        Ok(Self { tree })
    }

    /// Lets the script lie over the program, where the tree has that, while another one runs.
    ///
    /// # Errors
    /// The tree cannot be read.
    pub(crate) fn cover<'p>(&self, program: Program<'p>) -> Result<Program<'p>, Error> {
        Ok(if self.tree.is_file(PLACE)? { program.cover(PLACE, SCRIPT) } else { program })
    }

    /// Takes the script away and returns the arguments of the calls that are left to make.
    ///
    /// # Errors
    /// The tree cannot be read or changed.
    pub(crate) fn calls(self) -> Result<Vec<Vec<String>>, Error> {
        self.tree.remove_file(SCRIPT)?;
        if !self.tree.exists(NOTES)? {
            return Ok(Vec::new());
        }
        let notes = read_text(self.tree, NOTES)?;
        self.tree.remove_file(NOTES)?;
        let names = if self.tree.is_dir(DIRECTORY)? { self.tree.read_dir(DIRECTORY)? } else { Vec::new() };
        let names = names.into_iter().filter_map(|name| name.into_string().ok());
        let images: BTreeSet<String> = names.filter(|name| name.starts_with(PREFIX)).collect();
        Ok(left(&notes, &images))
    }
}

/// The calls that make what all noted ones would, with these images in the directory for them: those that create an
/// image, and those that update one unless all there are were just created.
fn left(notes: &str, images: &BTreeSet<String>) -> Vec<Vec<String>> {
    let mut calls: Vec<Vec<String>> = Vec::new();
    for note in notes.lines() {
        let call = note.split_whitespace().map(str::to_owned).collect();
        if !calls.contains(&call) {
            calls.push(call);
        }
    }
    let (mut calls, updates): (Vec<_>, Vec<_>) = calls.into_iter().partition(|call| call.contains(&"-c".to_owned()));
    let created: BTreeSet<String> = calls.iter().filter_map(|call| image(call)).collect();
    if !images.is_subset(&created) || images.is_empty() {
        calls.extend(updates);
    }
    calls
}

/// The image in the usual directory that a call is about, where it names one.
fn image(call: &[String]) -> Option<String> {
    let value = |name: &str| call.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_str());
    let usual = value("-b").is_none_or(|directory| Path::new(directory) == Path::new("/").join(DIRECTORY));
    value("-k").filter(|_| usual).map(|version| format!("{PREFIX}{version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_is_made_once() {
        let create = "-c -k 6.1 -b /boot";
        for (notes, images, expected) in [
            ("", vec![], vec![]),
            ("-c -k 6.1 -b /boot\n-u\n-u\n", vec!["initrd.img-6.1"], vec![create]),
            // Whichever kernel's it updates.
            ("-u\n-c -k 6.1 -b /boot\n-u\n", vec!["initrd.img-6.0", "initrd.img-6.1"], vec![create, "-u"]),
            ("-u\n-u\n", vec!["initrd.img-6.1"], vec!["-u"]),
            ("-u\n", vec![], vec!["-u"]),
            ("-c -k all\n-u\n", vec!["initrd.img-6.1"], vec!["-c -k all", "-u"]),
            ("-c -k 6.1 -b /mnt\n-u\n", vec!["initrd.img-6.1"], vec!["-c -k 6.1 -b /mnt", "-u"]),
        ] {
            let images = images.into_iter().map(str::to_owned).collect();
            let calls: Vec<String> = left(notes, &images).iter().map(|call| call.join(" ")).collect();
            assert_eq!(calls, expected, "{notes}");
        }
    }
}
