//! The medium of a live system: what is beside kernel, initrd and root, and the tools that make an image of it, for
//! each architecture.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use osbc_module_api::*;
use rustix::fs::OFlags;

use crate::boot::live_config::{Area, Areas};
use crate::boot::live_efi;
use osbc_pytext::json::to_string_sorted as indented;

/// How much room there is for an Ignition configuration.
const IGNITION_SIZE: u64 = 256 << 10;
/// How much room there is for what distinguishes a minimal image from the whole one.
const MINIMAL_SIZE: u64 = 16 << 10;

const KERNEL: &str = "images/pxeboot/vmlinuz";
const INITRD: &str = "images/pxeboot/initrd.img";
const ROOT: &str = "images/pxeboot/rootfs.img";

/// Where distributions have the files of syslinux.
const SYSLINUX: [&str; 3] = ["/usr/share/syslinux", "/usr/lib/syslinux/modules/bios", "/usr/lib/ISOLINUX"];
const SYSLINUX_FILES: [&str; 5] = ["isolinux.bin", "ldlinux.c32", "libcom32.c32", "libutil.c32", "vesamenu.c32"];
/// Where a build root has what s390x boots by.
const TEMPLATES: &str = "/usr/share/lorax/templates.d/99-generic/config_files/s390";

/// Returns what media take from the build root besides tools.
pub(crate) fn files() -> Vec<String> {
    let syslinux = SYSLINUX.iter().flat_map(|directory| SYSLINUX_FILES.map(|name| format!("{directory}/{name}")));
    syslinux.chain([TEMPLATES.to_owned()]).collect()
}

/// What the build is for: the machine that it runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Architecture {
    X86,
    Arm,
    Power,
    S390,
    Other,
}

impl Architecture {
    /// That of the machine.
    pub(crate) fn of_machine() -> Self {
        match std::env::consts::ARCH {
            "x86_64" => Self::X86,
            "aarch64" => Self::Arm,
            "powerpc64" => Self::Power,
            "s390x" => Self::S390,
            _ => Self::Other,
        }
    }

    /// Whether it boots by UEFI.
    pub(crate) fn has_uefi(self) -> bool {
        matches!(self, Self::X86 | Self::Arm)
    }
}

/// The medium in the making.
#[derive(Debug)]
pub(crate) struct Medium<'a> {
    pub(crate) cx: &'a StageContext,
    /// The system.
    pub(crate) deployed: &'a Tree,
    /// What will be on the medium.
    pub(crate) iso: Tree,
    /// The directory that `iso` lies in.
    pub(crate) directory: &'a Path,
    /// The medium's name, of at most 32 letters.
    pub(crate) volume: String,
    /// Its long name.
    pub(crate) volume_set: String,
    pub(crate) architecture: Architecture,
    /// Where arguments of the kernel are.
    pub(crate) areas: Areas,
}

/// A tool and how it is called but for where the image goes.
pub(crate) type Call = (&'static str, Vec<String>);

impl Medium<'_> {
    /// Puts everything to the medium that the architecture needs, and says how the image is made.
    ///
    /// A fixture is for tests of coreos-installer: its large files are lines of text.
    ///
    /// # Errors
    /// A file or tool is missing, or something cannot be written.
    pub(crate) fn prepare(&mut self, fixture: bool) -> Result<Call, Error> {
        self.name_vendor()?;
        let mut ignition = json!({});
        if self.architecture != Architecture::S390 {
            self.zeros("images/ignition.img", IGNITION_SIZE)?;
            ignition = json!({"file": "images/ignition.img"});
        }
        let volume = ["-volset".to_owned(), self.volume_set.clone()];
        let common = ["-rational-rock", "-J", "-joliet-long"].map(str::to_owned);
        let mut arguments = ["-verbose", "-V", &self.volume].map(str::to_owned).to_vec();
        arguments.extend(volume.iter().chain(&common).cloned());
        let mut tool = "genisoimage";
        match self.architecture {
            Architecture::X86 => arguments.extend(self.bios()?),
            Architecture::Power => {
                self.power()?;
                (tool, arguments) = ("grub2-mkrescue", vec!["-volid".to_owned(), self.volume.clone()]);
            }
            Architecture::S390 => {
                ignition = self.mainframe(fixture)?;
                arguments = ["-verbose", "-volid", &self.volume].map(str::to_owned).to_vec();
                arguments.extend(volume.into_iter().chain(common));
                arguments.extend(["-no-emul-boot", "-eltorito-boot", "images/cdboot.img"].map(str::to_owned));
                tool = "xorrisofs";
            }
            Architecture::Arm | Architecture::Other => {}
        }
        // Of no use but on s390x, where it has been used by now.
        self.iso.remove_file("zipl.prm")?;
        if self.architecture.has_uefi() {
            self.uefi()?;
            let uefi = ["-eltorito-alt-boot", "-efi-boot", "images/efiboot.img", "-no-emul-boot"];
            arguments.extend(uefi.map(str::to_owned));
        }
        if let Some(areas) = std::mem::take(&mut self.areas).document(&self.iso)? {
            self.iso.write("coreos/kargs.json", indented(&areas, 2) + "\n")?;
        }
        self.iso.write("coreos/igninfo.json", indented(&ignition, 2) + "\n")?;
        self.zeros("coreos/miniso.dat", MINIMAL_SIZE)?;
        if fixture {
            self.trim()?;
        }
        Ok((tool, arguments))
    }

    /// Makes the image `name` in the directory.
    ///
    /// # Errors
    /// The tool is missing or fails.
    pub(crate) fn write(&self, (tool, arguments): &Call, name: &str) -> Result<(), Error> {
        let image = self.directory.join(name);
        self.cx.tool(tool)?.args(arguments).arg("-o").arg(&image).arg(self.iso.path_for_tools("/")?).run()?;
        if self.architecture == Architecture::X86 {
            // For a stick, which BIOS and UEFI take for a disk.
            self.cx.tool("isohybrid")?.arg("--uefi").arg(image).run()?;
        }
        Ok(())
    }

    /// The menus of UEFI lie in a directory of any name; it gets the distributor's.
    fn name_vendor(&mut self) -> Result<(), Error> {
        if !self.architecture.has_uefi() {
            return Ok(());
        }
        let vendor = live_efi::vendor(self.deployed)?;
        let (from, to) = (grub_directory(&self.iso)?, format!("EFI/{vendor}"));
        if from != to {
            self.iso.rename(&from, &to)?;
            self.areas.moved(&format!("{from}/grub.cfg"), &format!("{to}/grub.cfg"));
        }
        Ok(())
    }

    /// Puts what boots by BIOS to the medium.
    fn bios(&self) -> Result<Vec<String>, Error> {
        for name in SYSLINUX_FILES {
            let places = SYSLINUX.map(|directory| Path::new(directory).join(name));
            let place = places.iter().find(|place| place.is_file()).ok_or_else(|| {
                Error::failed(format!(
                    "{name} is not in the build root; install the package `syslinux` (Fedora), or `isolinux` and \
                     `syslinux-common` (Debian)"
                ))
            })?;
            let path = format!("isolinux/{name}");
            self.iso.write(&path, outside::read(place, outside::WHOLE).map_err(Error::io("read", place))?)?;
            self.iso.chmod(path, 0o755)?;
        }
        let eltorito = ["-eltorito-boot", "isolinux/isolinux.bin", "-eltorito-catalog", "isolinux/boot.cat"];
        let rest = ["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"];
        Ok(eltorito.iter().chain(&rest).map(|word| (*word).to_owned()).collect())
    }

    /// Moves the menu to where GRUB of POWER has it, and removes what it does not need.
    fn power(&mut self) -> Result<(), Error> {
        self.iso.create_dir_all("boot/grub", 0o777)?;
        let from = format!("{}/grub.cfg", grub_directory(&self.iso)?);
        self.iso.rename(&from, "boot/grub/grub.cfg")?;
        self.areas.moved(&from, "boot/grub/grub.cfg");
        ["EFI", "isolinux"].into_iter().try_for_each(|directory| self.iso.remove_dir_all(directory))
    }

    /// Puts the image that boots by UEFI to the medium.
    fn uefi(&self) -> Result<(), Error> {
        let parent = self.directory.join("efi");
        fs::create_dir_all(parent.join("EFI")).map_err(Error::io("create the directory", &parent))?;
        let parent = Tree::open(parent)?;
        live_efi::fill(self.deployed, &parent.subtree("EFI")?)?;
        let configuration = live_efi::grub_configuration(&self.volume, &live_efi::vendor(self.deployed)?);
        parent.write(format!("EFI/{}/grub.cfg", live_efi::BOOT), configuration)?;
        live_efi::image(self.cx, &parent, &self.iso.path_for_tools("images/efiboot.img")?)
    }

    /// Puts the one file to the medium that s390x boots, of kernel, initrd and arguments; says where Ignition's
    /// configuration goes in it.
    fn mainframe(&mut self, fixture: bool) -> Result<Value, Error> {
        /// Room for the kernel: where the initrd goes in memory.
        const ADDRESS: u32 = 0x0200_0000;
        /// Where the file says where the initrd begins in it, and where the arguments are.
        const INITRD_START: u64 = 66568;
        const ARGUMENTS: usize = 66688;
        const ARGUMENTS_SIZE: usize = 896;

        let template = |name: &str| {
            let path = Path::new(TEMPLATES).join(name);
            let text = outside::read(&path, outside::WHOLE).and_then(|bytes| {
                String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
            });
            text.map_err(Error::io("read", path))
        };
        self.iso.write("images/redhat.exec", template("redhat.exec")?)?;
        let list = template("generic.ins")?.replace("images/kernel.img", KERNEL).replace("images/initrd.img", INITRD);
        self.iso.write("generic.ins", list.replace("@INITRD_LOAD_ADDRESS@", &format!("0x{ADDRESS:08x}")))?;
        let arguments = self.iso.read("zipl.prm")?;
        for name in ["cdboot", "generic", "genericdvd"] {
            self.iso.write(format!("images/{name}.prm"), &arguments)?;
        }
        if fixture {
            // The part of the kernel that says where initrd and arguments are.
            self.resize(KERNEL, 128 << 10)?;
            self.resize(INITRD, 1024)?;
        }
        let size = self.iso.metadata(INITRD)?.len();
        let place = |path: &str| self.iso.path_for_tools(path);
        // The configuration has its room behind the initrd, as there can be but one.
        self.resize(INITRD, size + IGNITION_SIZE)?;
        let tool = self.cx.tool("mk-s390image")?.arg(place(KERNEL)?).arg(place("images/cdboot.img")?);
        tool.arg("-r").arg(place(INITRD)?).arg("-p").arg(place("images/cdboot.prm")?).run()?;
        self.resize(INITRD, size)?;
        let length = u32::try_from(size).map_err(|_| Error::failed("the initrd is too large for s390x"))?;
        let words = [0, ADDRESS, 0, length].map(u32::to_be_bytes);
        self.iso.write("images/initrd.addrsize", words.concat())?;
        ["EFI", "isolinux"].into_iter().try_for_each(|directory| self.iso.remove_dir_all(directory))?;

        let image = self.iso.open_file("images/cdboot.img", OFlags::RDONLY, 0)?;
        let mut start = [0; 8];
        image.read_exact_at(&mut start, INITRD_START).map_err(Error::io("read", "images/cdboot.img"))?;
        let start = u64::from_be_bytes(start);
        let (mut there, mut wanted) = (Vec::new(), Vec::new());
        let mut initrd = self.iso.open_file(INITRD, OFlags::RDONLY, 0)?;
        Read::by_ref(&mut initrd).take(1024).read_to_end(&mut wanted).map_err(Error::io("read", INITRD))?;
        there.resize(wanted.len(), 0);
        if image.read_exact_at(&mut there, start).is_err() || there != wanted {
            return Err(Error::failed(format!("mk-s390image has not put the initrd where it says, at {start}")));
        }
        let path = "images/cdboot.img".to_owned();
        self.areas.files.push(Area { path: path.clone(), offset: ARGUMENTS, pad: "\0", end: "\0" });
        self.areas.size = ARGUMENTS_SIZE;
        Ok(json!({"file": path, "offset": start + size, "length": IGNITION_SIZE}))
    }

    fn zeros(&self, path: &str, size: u64) -> Result<(), Error> {
        self.iso.write(path, "")?;
        self.resize(path, size)
    }

    fn resize(&self, path: &str, size: u64) -> Result<(), Error> {
        let file: File = self.iso.open_file(path, OFlags::WRONLY, 0)?;
        file.set_len(size).map_err(Error::io("resize", path))
    }

    /// Makes text of what is large.
    fn trim(&self) -> Result<(), Error> {
        /// What isohybrid looks for, and where.
        const MAGIC: (usize, [u8; 4]) = (64, *b"\xfb\xc0\x78\x70");
        let texts = [
            ("images/efiboot.img", "efiboot.img\n"),
            (ROOT, "rootfs data\n"),
            (INITRD, "initrd data\n"),
            (KERNEL, "the kernel\n"),
        ];
        texts.into_iter().try_for_each(|(path, text)| self.iso.write(path, text))?;
        if !self.iso.is_dir("isolinux")? {
            return Ok(());
        }
        let (at, magic) = MAGIC;
        let length = usize::try_from(self.iso.metadata("isolinux/isolinux.bin")?.len()).unwrap_or_default();
        let mut loader = vec![0; length.max(at + magic.len())];
        loader[at..at + magic.len()].copy_from_slice(&magic);
        self.iso.write("isolinux/isolinux.bin", loader)?;
        for name in self.iso.read_dir("isolinux")? {
            let name = name.to_string_lossy();
            if name.ends_with(".c32") || name.ends_with(".msg") {
                self.iso.remove_file(format!("isolinux/{name}"))?;
            }
        }
        Ok(())
    }
}

/// The one directory of `EFI` with a menu of GRUB.
fn grub_directory(iso: &Tree) -> Result<String, Error> {
    let mut found = Vec::new();
    for name in iso.read_dir("EFI")? {
        let directory = format!("EFI/{}", name.to_string_lossy());
        if iso.exists(format!("{directory}/grub.cfg"))? {
            found.push(directory);
        }
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        count => Err(Error::failed(format!(
            "the menus of the live system are in {count} directories EFI/*/grub.cfg, not one"
        ))),
    }
}
