//! `osbc boot`: starts an image in a virtual machine and watches its serial console.

use std::fs::{self, File};
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use osbc_module_api::{host_program, packages_of, threads};
use osbc_sandbox::interrupt::Interrupt;
use osbc_sandbox::vm::processor_arguments;
use osbc_store::fs::temporary;
use osbc_store::fs::temporary::OwnedDirectory;

use crate::args::{BootArgs, FirmwareArg};
use crate::exit::{self, Failure};
use crate::output::say;
use crate::signals::listen;

/// The program.
const QEMU: &str = "qemu-system-x86_64";
/// Where distributions keep the firmware for UEFI: code and what it stores, in pairs.
const FIRMWARE: [(&str, &str); 4] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
];
/// What a qcow2 image begins with.
const QCOW2: &[u8; 4] = b"QFI\xfb";
/// The longest pause between two looks at the clock and at signals.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Boots an image.
pub(crate) fn run(args: &BootArgs) -> Result<ExitCode, Failure> {
    let interrupt = Interrupt::new().map_err(Failure::environment)?;
    listen(&interrupt)?;
    let (mut command, _directory) = machine(args)?;
    host_program::contain(&mut command);
    let mut guest = Guest(command.spawn().map_err(|error| {
        Failure::environment(format!("cannot start {QEMU}: {error}; {} has it", packages_of(QEMU)))
    })?);
    let console = read(&mut guest.0)?;
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    match watch(&console, args.until.as_deref().unwrap_or_default().as_bytes(), deadline, &interrupt)? {
        End::Said => Ok(ExitCode::SUCCESS),
        End::Closed => {
            let status = guest.0.wait().map_err(Failure::environment)?;
            if !status.success() {
                return Err(Failure::environment(format!("{QEMU} failed: {status}")));
            }
            match &args.until {
                None => Ok(ExitCode::SUCCESS),
                Some(text) => {
                    say(&format!("osbc: the guest ended without printing {text:?}"));
                    Ok(ExitCode::from(exit::BUILD_FAILED))
                }
            }
        }
        End::Late => {
            let (seconds, text) = (args.timeout, args.until.as_deref());
            let missing = text.map_or_else(|| "still runs".to_owned(), |text| format!("has not printed {text:?}"));
            say(&format!("osbc: the guest {missing} after {seconds} s and was ended"));
            Ok(ExitCode::from(exit::TIMED_OUT))
        }
        End::Stopped => Ok(ExitCode::from(exit::INTERRUPTED)),
    }
}

/// A virtual machine that ends with this.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // Nobody is left to read the error.
        host_program::end(&mut self.0).ok();
    }
}

/// How watching ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The guest said the text.
    Said,
    /// The guest ended.
    Closed,
    /// The time is over.
    Late,
    /// The user wants no more.
    Stopped,
}

/// The command that starts the machine, and the directory of what the firmware stores.
fn machine(args: &BootArgs) -> Result<(Command, Option<OwnedDirectory>), Failure> {
    let format = format_of(&args.image)?;
    let mut command = Command::new(QEMU);
    command.args(["-machine", "q35", "-m", "1024", "-smp", "2"]).args(processor_arguments());
    // What the guest writes is gone with it.
    let drive =
        format!("file={},format={format},if=virtio,snapshot=on", args.image.display().to_string().replace(',', ",,"));
    command.args([
        "-display",
        "none",
        "-monitor",
        "none",
        "-serial",
        "stdio",
        "-nic",
        "none",
        "-no-reboot",
        "-drive",
        &drive,
    ]);
    let mut directory = None;
    if args.firmware == FirmwareArg::Uefi {
        let (code, variables) = FIRMWARE.iter().find(|(code, _)| Path::new(code).exists()).ok_or_else(|| {
            Failure::environment(
                "there is no firmware for UEFI; the package `ovmf` (Debian, Ubuntu) or `edk2-ovmf` (elsewhere) has it",
            )
        })?;
        let own = OwnedDirectory::new(&std::env::temp_dir(), temporary::COMMAND).map_err(Failure::environment)?;
        let place = own.path().join("variables");
        fs::copy(variables, &place).map_err(Failure::environment)?;
        command.arg("-drive").arg(format!("if=pflash,format=raw,readonly=on,file={code}"));
        command.arg("-drive").arg(format!("if=pflash,format=raw,file={}", place.display()));
        directory = Some(own);
    }
    // Who waits for a text does not type.
    let typed = args.until.is_none() && std::io::stdin().is_terminal();
    command.stdin(if typed { Stdio::inherit() } else { Stdio::null() }).stdout(Stdio::piped());
    Ok((command, directory))
}

fn format_of(image: &PathBuf) -> Result<&'static str, Failure> {
    let cannot = |error| Failure::arguments(format!("cannot read the image {}: {error}", image.display()));
    let mut head = Vec::new();
    File::open(image).map_err(cannot)?.take(4).read_to_end(&mut head).map_err(cannot)?;
    match head.as_slice() {
        [] => Err(Failure::arguments(format!("the image {} is empty", image.display()))),
        head if head == QCOW2 => Ok("qcow2"),
        _ => Ok("raw"),
    }
}

/// What a machine writes to its console, as it comes.
fn read(guest: &mut Child) -> Result<Receiver<Vec<u8>>, Failure> {
    let mut console = guest.stdout.take().ok_or_else(|| Failure::environment("the machine has no console"))?;
    let (sender, receiver) = channel();
    threads::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = console.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// Shows what comes until it has the text, which may be empty for none, or until something else ends it.
fn watch(console: &Receiver<Vec<u8>>, text: &[u8], deadline: Instant, interrupt: &Interrupt) -> Result<End, Failure> {
    let mut end = Vec::new();
    loop {
        if interrupt.is_raised() {
            return Ok(End::Stopped);
        }
        if Instant::now() >= deadline {
            return Ok(End::Late);
        }
        match console.recv_timeout(POLL_INTERVAL) {
            Ok(bytes) => {
                let mut out = std::io::stdout().lock();
                out.write_all(&bytes).and_then(|()| out.flush()).map_err(Failure::environment)?;
                end.extend(bytes);
                if !text.is_empty() && end.windows(text.len()).any(|window| window == text) {
                    return Ok(End::Said);
                }
                // The beginning of the text may be there already.
                end.drain(..end.len().saturating_sub(text.len()));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(End::Closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(chunks: &[&str], text: &str, deadline: Instant, stopped: bool, open: bool) -> End {
        let (sender, receiver) = channel();
        chunks.iter().for_each(|chunk| sender.send(chunk.as_bytes().to_vec()).expect("the receiver is there"));
        let _kept = open.then_some(sender);
        let interrupt = Interrupt::new().expect("an eventfd");
        if stopped {
            interrupt.raise();
        }
        watch(&receiver, text.as_bytes(), deadline, &interrupt).expect("standard output is there")
    }

    #[test]
    fn a_text_is_found_however_it_comes() {
        let later = Instant::now() + Duration::from_secs(100);
        assert_eq!(watched(&["booting, lo", "g", "in: "], "login:", later, false, true), End::Said);
        assert_eq!(watched(&["log", "out"], "login:", later, false, false), End::Closed);
        assert_eq!(watched(&["anything"], "", later, false, false), End::Closed);
        assert_eq!(watched(&[], "login:", Instant::now(), false, true), End::Late);
        assert_eq!(watched(&["login:"], "login:", later, true, true), End::Stopped);
    }

    #[test]
    fn formats_are_recognized_by_content() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let format = |content: &[u8]| {
            let path = directory.path().join("image");
            fs::write(&path, content).expect("writable");
            format_of(&path).map_err(|failure| failure.to_string())
        };
        assert_eq!((format(b"QFI\xfb...").as_deref(), format(b"x").as_deref()), (Ok("qcow2"), Ok("raw")));
        assert!(format(b"").unwrap_err().contains("is empty"));
        assert!(format_of(&directory.path().join("missing")).is_err());
    }
}
