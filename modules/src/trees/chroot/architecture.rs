//! Which machine a program of a tree is made for, for the message that it does not start.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use osbc_module_api::Error;
use rustix::io::Errno;

/// What programs for a machine are called, by the number in the header of an ELF file.
const NAMES: [(u16, &str); 8] = [
    (3, "i386"),
    (20, "powerpc"),
    (21, "ppc64el"),
    (22, "s390x"),
    (40, "armhf"),
    (62, "amd64"),
    (183, "arm64"),
    (243, "riscv64"),
];

/// What this machine runs by itself.
const OWN: &[&str] = if cfg!(target_arch = "x86_64") {
    &["amd64", "i386"]
} else if cfg!(target_arch = "aarch64") {
    &["arm64", "armhf"]
} else {
    &[]
};

/// Returns why the program at an absolute path of the calling thread's root does not start.
///
/// If the OS error is that the program is for another architecture, or that its interpreter is missing, the message
/// says so and what to do.
pub(super) fn cannot_start(program: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| {
        let of_another =
            [Errno::NOEXEC, Errno::NOENT].iter().any(|one| error.raw_os_error() == Some(one.raw_os_error()));
        match of_another.then(|| machine(program)).flatten().filter(|name| !OWN.contains(&name.as_str())) {
            Some(architecture) => Error::WrongArchitecture { program: program.to_owned(), architecture },
            None => Error::io("start", program)(error),
        }
    }
}

/// The machine that a program, or the interpreter of a script, is made for; `None` if that cannot be found out.
fn machine(program: &Path) -> Option<String> {
    let mut head = [0; 128];
    let length = File::open(program).and_then(|mut file| file.read(&mut head)).ok()?;
    let head = &head[..length];
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = String::from_utf8_lossy(line.split(|byte| *byte == b'\n').next()?).trim().to_owned();
        let interpreter = PathBuf::from(line.split_whitespace().next()?);
        // An interpreter that is a script itself is left to the kernel.
        return if interpreter == program { None } else { machine_of(&interpreter) };
    }
    number(head)
}

fn machine_of(program: &Path) -> Option<String> {
    let mut head = [0; 20];
    File::open(program).and_then(|mut file| file.read_exact(&mut head)).ok()?;
    number(&head)
}

/// The machine by the header of an ELF file.
pub(crate) fn number(head: &[u8]) -> Option<String> {
    let is_elf = head.starts_with(b"\x7fELF");
    let [one, other] = *head.get(18..20).filter(|_| is_elf)?.first_chunk()?;
    let number = if head[5] == 2 { u16::from_be_bytes([one, other]) } else { u16::from_le_bytes([one, other]) };
    let known = NAMES.iter().find(|(known, _)| *known == number).map(|(_, name)| (*name).to_owned());
    Some(known.unwrap_or_else(|| format!("an architecture with the number {number}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(number: u16) -> Vec<u8> {
        let mut header = b"\x7fELF\x02\x01\x01".to_vec();
        header.resize(64, 0);
        header[18..20].copy_from_slice(&number.to_le_bytes());
        header
    }

    #[test]
    fn programs_and_scripts_of_other_machines_are_distinguished_from_what_just_fails() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, content: &[u8]| {
            std::fs::write(directory.path().join(name), content).unwrap();
            directory.path().join(name)
        };
        let why = |path: &Path, errno: Errno| cannot_start(path)(errno.into()).to_string();
        let foreign = put("foreign", &header(22));
        let script = put("script", format!("#! {} -e\n", foreign.display()).as_bytes());
        for path in [&foreign, &script] {
            let reason = why(path, Errno::NOEXEC);
            assert!(reason.contains("is made for s390x") && reason.contains("qemu-user-static"), "{reason}");
            assert!(why(path, Errno::NOENT).contains("s390x") && !why(path, Errno::ACCESS).contains("s390x"));
        }
        assert!(why(&put("odd", &header(9999)), Errno::NOEXEC).contains("an architecture with the number 9999"));
        for path in [put("text", b"no program"), put("short", b"\x7fELF"), directory.path().join("missing")] {
            assert!(why(&path, Errno::NOEXEC).starts_with("cannot start "));
        }
        // One's own program lacks something else.
        assert!(why(Path::new("/proc/self/exe"), Errno::NOENT).starts_with("cannot start "));
    }
}
