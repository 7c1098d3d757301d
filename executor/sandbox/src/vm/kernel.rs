//! The kernel of a tree: its image and its modules, as distributions lay them out, and what a module needs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use osbc_module_api::{Error, Tree};
use serde::{Deserialize, Serialize};

/// Where modules are, a directory for each kernel.
const MODULES: &str = "usr/lib/modules";
/// The same in trees where `/lib` is not merged into `/usr`.
const OLD_MODULES: &str = "lib/modules";
/// The largest module, unpacked, in bytes.
const MAX_MODULE: u64 = 256 << 20;

/// A kernel with modules.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kernel {
    /// The root of its tree.
    root: PathBuf,
    pub(crate) release: String,
    /// The image, in the tree.
    image: PathBuf,
    /// The files of its modules, in the tree, by the modules' names.
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
    /// By other names that the kernel may ask for.
    aliases: BTreeMap<String, Vec<String>>,
}

/// A module that is to be loaded.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) name: String,
    /// What the kernel takes.
    pub(crate) image: Vec<u8>,
}

impl Kernel {
    /// The kernel of the tree at `root`: the one that is `preferred`, by its release, else the newest. `whose` names
    /// the tree in messages.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub(crate) fn find(root: &Path, whose: &str, preferred: &str) -> Result<Self, String> {
        let tree = Tree::open(root).map_err(|error| error.to_string())?;
        find(&tree, root, preferred).map_err(|error| error.to_string())?.ok_or_else(|| {
            format!(
                "{whose} has no kernel for a virtual machine (/{MODULES}/RELEASE/vmlinuz or /boot/vmlinuz-RELEASE, with \
                 /{MODULES}/RELEASE); the package `linux-image-cloud-amd64` (Debian), `linux-image-virtual` (Ubuntu) or \
                 `kernel-core` (Fedora) has one"
            )
        })
    }

    /// What boots.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn image(&self) -> Result<Vec<u8>, Error> {
        Tree::open(&self.root)?.read(&self.image)
    }

    /// The modules that `name` stands for and those that they need, these first, without what is built in. None where
    /// the kernel has nothing of that name.
    ///
    /// # Errors
    /// One of them cannot be read, or what it needs is not there.
    pub(crate) fn modules(&self, name: &str) -> Result<Option<Vec<Module>>, String> {
        let name = plain(name);
        let names = match self.aliases.get(&name) {
            Some(names) => names.clone(),
            // Where nobody has run depmod, the kernel's words for file systems are as good.
            None => vec![name.strip_prefix("fs_").unwrap_or(&name).to_owned()],
        };
        if !names.iter().any(|name| self.has(name)) {
            return Ok(None);
        }
        let tree = Tree::open(&self.root).map_err(|error| error.to_string())?;
        let mut found = Vec::new();
        for name in names.iter().filter(|name| self.has(name)) {
            self.add(&tree, name, &mut found)?;
        }
        Ok(Some(found))
    }

    fn has(&self, name: &str) -> bool {
        self.built_in.contains(name) || self.files.contains_key(name)
    }

    fn add(&self, tree: &Tree, name: &str, found: &mut Vec<Module>) -> Result<(), String> {
        if self.built_in.contains(name) || found.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let file = self.files.get(name);
        let file = file.ok_or_else(|| format!("the kernel {} has no module `{name}`", self.release))?;
        let image = tree.read(file).map_err(|error| error.to_string())?;
        let unusable = |reason| format!("the kernel module {}: {reason}", file.display());
        let image = decompressed(image).map_err(|error| unusable(error.to_string()))?;
        let needs = needs(&image).ok_or_else(|| unusable("it does not say what it needs".to_owned()))?;
        for need in needs {
            self.add(tree, &need, found)?;
        }
        found.push(Module { name: name.to_owned(), image });
        Ok(())
    }
}

fn find(tree: &Tree, root: &Path, preferred: &str) -> Result<Option<Kernel>, Error> {
    let mut best: Option<(bool, Vec<u64>, String, PathBuf, PathBuf)> = None;
    for directory in [MODULES, OLD_MODULES] {
        if !tree.is_dir(directory)? {
            continue;
        }
        for release in tree.read_dir(directory)? {
            let Some(release) = release.to_str() else { continue };
            let modules = Path::new(directory).join(release);
            for image in [modules.join("vmlinuz"), Path::new("boot").join(format!("vmlinuz-{release}"))] {
                if tree.is_file(&image)? {
                    let this = (release == preferred, numbers(release), release.to_owned(), image, modules.clone());
                    if best.as_ref().is_none_or(|best| (best.0, &best.1) < (this.0, &this.1)) {
                        best = Some(this);
                    }
                }
            }
        }
    }
    let Some((_, _, release, image, modules)) = best else { return Ok(None) };
    let mut files = BTreeMap::new();
    tree.walk(&modules, |path, metadata| {
        if let Some(name) = path.file_name().and_then(|name| name.to_str()).and_then(module_name)
            && metadata.is_file()
        {
            files.insert(name, path.to_owned());
        }
        Ok(())
    })?;
    let read = |name: &str| {
        let path = modules.join(name);
        Ok(if tree.is_file(&path)? { tree.read_to_string(&path)? } else { String::new() })
    };
    let built_in = read("modules.builtin")?;
    let built_in = built_in.lines().filter_map(|line| module_name(line.rsplit('/').next()?)).collect();
    let mut aliases: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // Patterns are for hardware.
    for line in read("modules.alias")?.lines().filter(|line| !line.contains(['*', '?', '['])) {
        if let [_, alias, name] = line.split(' ').collect::<Vec<_>>()[..] {
            aliases.entry(plain(alias)).or_default().push(plain(name));
        }
    }
    Ok(Some(Kernel { root: root.to_owned(), release, image, files, built_in, aliases }))
}

/// The numbers of a release, by which kernels are older or newer.
fn numbers(release: &str) -> Vec<u64> {
    let parts = release.split(|character: char| !character.is_ascii_digit());
    parts.filter_map(|part| part.parse().ok()).collect()
}

/// The name of the module in a file of that name.
fn module_name(file: &str) -> Option<String> {
    let (name, compression) = file.split_once(".ko")?;
    ["", ".gz", ".xz", ".zst"].contains(&compression).then(|| plain(name))
}

/// Names of modules are the same with `-` and `_`.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

pub(crate) fn decompressed(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let decoder: Box<dyn Read> = match bytes.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::GzDecoder::new(&bytes[..])),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Box::new(liblzma::read::XzDecoder::new(&bytes[..])),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::new(&bytes[..])?),
        _ => return Ok(bytes),
    };
    let mut plain = Vec::new();
    decoder.take(MAX_MODULE + 1).read_to_end(&mut plain)?;
    if plain.len() as u64 > MAX_MODULE {
        let reason = format!("unpacked it has more than {MAX_MODULE} bytes, which no module has");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(plain)
}

/// The modules that a module needs, by what its section `.modinfo` says (ELF, 64 bits, little-endian). `None` if it is
/// none.
pub(crate) fn needs(module: &[u8]) -> Option<Vec<String>> {
    let number = |at: usize, length: usize| {
        let bytes = module.get(at..at.checked_add(length)?)?;
        let number = bytes.iter().rev().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
        usize::try_from(number).ok()
    };
    if !module.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (headers, size, count, names) = (number(0x28, 8)?, number(0x3a, 2)?, number(0x3c, 2)?, number(0x3e, 2)?);
    let header = |index: usize| headers.checked_add(index.checked_mul(size)?);
    let content = |header: usize| {
        let (offset, length) = (number(header.checked_add(0x18)?, 8)?, number(header.checked_add(0x20)?, 8)?);
        module.get(offset..offset.checked_add(length)?)
    };
    let names = content(header(names)?)?;
    let info = (0..count).find_map(|index| {
        let header = header(index)?;
        let name = names.get(number(header, 4)?..)?;
        name.starts_with(b".modinfo\0").then(|| content(header))?
    })?;
    let depends = info.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"depends="))?;
    let depends = str::from_utf8(depends).ok()?;
    Some(depends.split(',').filter(|name| !name.is_empty()).map(plain).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A module that says no more than what it needs.
    fn module(depends: &str) -> Vec<u8> {
        let info = format!("name=x\0depends={depends}\0");
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut elf = vec![0; 0x40];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let (info_at, names_at) = (elf.len(), elf.len() + info.len());
        elf.extend(info.as_bytes());
        elf.extend(names);
        let headers = elf.len();
        for (name, at, length) in [(0, 0, 0), (1, info_at, info.len()), (10, names_at, names.len())] {
            let mut header = vec![0; 0x40];
            header[..4].copy_from_slice(&u32::to_le_bytes(name));
            header[0x18..0x20].copy_from_slice(&(at as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(length as u64).to_le_bytes());
            elf.extend(header);
        }
        elf[0x28..0x30].copy_from_slice(&(headers as u64).to_le_bytes());
        for (at, number) in [(0x3a, 0x40u16), (0x3c, 3), (0x3e, 2)] {
            elf[at..at + 2].copy_from_slice(&number.to_le_bytes());
        }
        elf
    }

    fn write(root: &Path, path: &str, content: &[u8]) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("is in a directory")).expect("writable");
        std::fs::write(path, content).expect("writable");
    }

    fn names(kernel: &Kernel, name: &str) -> Option<Vec<String>> {
        let found = kernel.modules(name).expect("can be read");
        found.map(|modules| modules.into_iter().map(|module| module.name).collect())
    }

    #[test]
    fn the_preferred_kernel_is_taken_else_the_newest_that_can_boot() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let find = |preferred| Kernel::find(root.path(), "the tree", preferred).map(|kernel| kernel.release);
        assert!(find("").unwrap_err().starts_with("the tree has no kernel"));
        write(root.path(), "usr/lib/modules/6.9.1/vmlinuz", b"");
        write(root.path(), "usr/lib/modules/6.10.0-3-amd64/kernel/x.ko", b"");
        write(root.path(), "boot/vmlinuz-6.10.0-3-amd64", b"");
        write(root.path(), "usr/lib/modules/7.0/kernel/x.ko", b"");
        assert_eq!(find("").as_deref(), Ok("6.10.0-3-amd64"), "7.0 has no image");
        assert_eq!(find("6.9.1").as_deref(), Ok("6.9.1"));
    }

    #[test]
    fn modules_come_after_what_they_need_however_they_are_kept() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, content: &[u8]| write(root.path(), &format!("usr/lib/modules/6.1/{name}"), content);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&module("low-er,virtio")).expect("in memory");
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
        xz.write_all(&module("")).expect("in memory");
        write("vmlinuz", b"image");
        write("modules.builtin", b"kernel/drivers/virtio/virtio.ko\n");
        write("modules.alias", b"# Aliases\nalias fs-iso9660 top_most\nalias pci:v*d* other\n");
        write("kernel/top-most.ko.zst", &zstd::encode_all(&module("middle")[..], 0).expect("in memory"));
        write("kernel/middle.ko.gz", &gzip.finish().expect("in memory"));
        write("updates/low_er.ko.xz", &xz.finish().expect("in memory"));
        write("kernel/ext4.ko", &module(""));
        write("kernel/broken.ko", &module("nothing"));
        write("kernel/text.ko", b"text");
        let kernel = Kernel::find(root.path(), "the tree", "").expect("there is one");
        let names = |name: &str| names(&kernel, name);
        let all = ["low_er", "middle", "top_most"].map(str::to_owned);
        assert_eq!(names("top_most").as_deref(), Some(&all[..]));
        assert_eq!(names("fs-iso9660").as_deref(), Some(&all[..]));
        assert_eq!(names("fs-ext4").as_deref(), Some(&["ext4".to_owned()][..]));
        assert_eq!(names("virtio").as_deref(), Some(&[][..]), "is built in");
        assert_eq!(names("other"), None);
        assert_eq!(kernel.modules("broken").unwrap_err(), "the kernel 6.1 has no module `nothing`");
        assert!(kernel.modules("text").unwrap_err().contains("text.ko: it does not say what it needs"));
        assert_eq!(kernel.image().expect("can be read"), b"image");
    }
}
