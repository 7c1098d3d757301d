//! The network of a stage: a namespace with the loopback interface alone.
//!
//! The kernel takes most of a millisecond to make one and more to take it down, so the helper's server has a stage use
//! one again that another one left as it was.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::sched::{CloneFlags, setns, unshare};

use super::sys;

/// A handle on a network namespace.
#[derive(Debug)]
pub(crate) struct Network {
    namespace: File,
    /// The kernel's count of what uses it.
    counts: File,
}

impl Network {
    /// Makes a new one; the calling thread is where it was before.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn make() -> io::Result<Self> {
        let before = namespace()?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        let made = sys::loopback_up()
            .and_then(|()| Ok(Self { namespace: namespace()?, counts: File::open("/proc/thread-self/net/sockstat")? }));
        setns(before, CloneFlags::CLONE_NEWNET)?;
        made
    }

    /// Enters it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn join(&self) -> io::Result<()> {
        Ok(setns(&self.namespace, CloneFlags::CLONE_NEWNET)?)
    }

    /// Whether no socket is left in it, nor a connection that lingers after its end. Who may not change interfaces leaves
    /// nothing else.
    ///
    /// # Errors
    /// The kernel does not say.
    pub(crate) fn is_unused(&self) -> io::Result<bool> {
        let mut text = [0; 1024];
        let length = self.counts.read_at(&mut text, 0)?;
        Ok(str::from_utf8(&text[..length]).is_ok_and(is_zero))
    }
}

/// The namespace that the calling thread is in.
fn namespace() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

/// Reads lines like `sockets: used 0` and `TCP: inuse 0 orphan 0 tw 0 alloc 12 mem 3`, of which the last two numbers, and
/// that of orphans, are those of all namespaces.
fn is_zero(text: &str) -> bool {
    let number = |line: &str, name: &str| {
        let words = text.lines().find_map(|text| text.strip_prefix(line))?;
        words.split_whitespace().skip_while(|word| *word != name).nth(1)?.parse::<u64>().ok()
    };
    number("sockets:", "used") == Some(0) && number("TCP:", "tw") == Some(0)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn only_zeros_of_the_namespace_itself_count() {
        let text = |used, waiting| {
            format!("sockets: used {used}\nTCP: inuse 0 orphan 3 tw {waiting} alloc 9 mem 1\nUDP: inuse 0 mem 5\n")
        };
        assert!(is_zero(&text(0, 0)));
        assert!(!is_zero(&text(1, 0)));
        assert!(!is_zero(&text(0, 1)));
        assert!(!is_zero("") && !is_zero("sockets: used 0\n"));
    }

    #[test]
    fn a_network_with_a_lingering_connection_is_in_use_as_root() {
        if !osbc_fixtures::has_root() {
            return;
        }
        let network = Network::make().expect("root may make one");
        assert!(network.is_unused().expect("the kernel counts"));
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                // Of this thread only.
                network.join().expect("it is there");
                let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
                let mut client = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
                assert!(!network.is_unused().expect("the kernel counts"));
                let (server, _) = listener.accept().expect("there is a client");
                drop(server);
                client.read_to_end(&mut Vec::new()).expect("the server has ended it");
            });
            inside.join().expect("no assertion failed");
        });
        assert!(!network.is_unused().expect("the kernel counts"), "the server's end lingers");
    }
}
