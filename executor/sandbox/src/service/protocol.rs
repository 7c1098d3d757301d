//! The wire of osbuild's modules: packets of a sequenced socket, one JSON document each, with file descriptors beside
//! it.
//!
//! A document larger than what the kernel takes in one packet goes in a file in memory, whose descriptor comes first.
//!
//! Whoever is at the other end may be broken or hostile: nothing here trusts a size, and descriptors that nobody asked
//! for are closed.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use osbc_module_api::Value;
use rustix::fs::{FileType, MemfdFlags, SeekFrom, fstat, memfd_create, seek};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg, sockopt,
};

/// The packet that says that the document is in the first descriptor.
const BY_DESCRIPTOR: &[u8] = b"<args-via-fd>";
/// The most descriptors that the kernel passes with one packet.
const DESCRIPTORS: usize = 253;
/// The largest document that is read: far more than any module has to say.
const LIMIT: usize = 64 << 20;
/// The most values that a document may have: each takes much more memory than text.
const VALUES: usize = 4_000_000;
/// What goes into one packet where the kernel does not say.
const SMALL: usize = 64_000;

/// A document, and what came beside it.
#[derive(Debug)]
pub(crate) struct ServiceMessage {
    pub(crate) value: Value,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Why nothing could be received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is too large.
    #[error("it sent {size} bytes at once; more than {LIMIT} are not read")]
    TooLarge {
        /// How many bytes it has.
        size: u64,
    },
    /// It has too many values.
    #[error("it sent a document of more than {VALUES} values")]
    TooMany,
    /// It is no JSON.
    #[error("it sent something that is no JSON: {0}")]
    NoJson(serde_json::Error),
    /// It came as a descriptor of something else than a file.
    #[error("it sent a document by a descriptor that is no file")]
    NoFile,
}

/// Sends a document. Does not wait for a reader.
///
/// # Errors
/// The other side is gone, or its queue is full.
pub(crate) fn send(socket: impl AsFd, value: &Value) -> io::Result<()> {
    let text = serde_json::to_vec(value)?;
    if text.len() <= largest_packet() {
        // The default may be less than the largest.
        sockopt::set_socket_send_buffer_size(&socket, text.len().max(SMALL))?;
        return send_packet(socket, &text, &[]);
    }
    let mut file = File::from(memfd_create("document", MemfdFlags::CLOEXEC)?);
    file.write_all(&text)?;
    seek(&file, SeekFrom::Start(0))?;
    send_packet(socket, BY_DESCRIPTOR, &[file.as_fd()])
}

fn send_packet(socket: impl AsFd, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    sendmsg(socket, &[IoSlice::new(packet)], &mut ancillary, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

/// What the kernel takes as one packet.
fn largest_packet() -> usize {
    let text = std::fs::read_to_string("/proc/sys/net/core/wmem_max").ok();
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(SMALL)
}

/// Receives the next document; `None` if the other side has closed the connection. Waits unless the socket does not.
///
/// # Errors
/// What came is no document, or larger than anything that is read.
pub(crate) fn receive(socket: impl AsFd) -> Result<Option<ServiceMessage>, ReceiveError> {
    // How much there is: asked without taking anything.
    let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
    let peeked = recvmsg(&socket, &mut [IoSliceMut::new(&mut [])], &mut RecvAncillaryBuffer::default(), flags);
    let size = peeked.map_err(io::Error::from)?.bytes;
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut packet = vec![0; size.min(LIMIT)];
    let received = recvmsg(
        &socket,
        &mut [IoSliceMut::new(&mut packet)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::TRUNC,
    )
    .map_err(io::Error::from)?;
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            descriptors.extend(more);
        }
    }
    if received.flags.contains(ReturnFlags::TRUNC) || size > LIMIT {
        return Err(ReceiveError::TooLarge { size: received.bytes.max(size) as u64 });
    }
    packet.truncate(received.bytes);
    if packet.is_empty() && descriptors.is_empty() {
        return Ok(None);
    }
    if packet == BY_DESCRIPTOR {
        if descriptors.is_empty() {
            return Err(ReceiveError::NoFile);
        }
        packet = read_file(descriptors.remove(0))?;
    }
    if values(&packet) > VALUES {
        return Err(ReceiveError::TooMany);
    }
    let value = serde_json::from_slice(&packet).map_err(ReceiveError::NoJson)?;
    Ok(Some(ServiceMessage { value, descriptors }))
}

/// About how many values a document has: what stands before, between and in brackets.
fn values(text: &[u8]) -> usize {
    let (mut count, mut quoted, mut escaped) = (1, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b',' | b'[' | b'{' | b':' if !quoted => count += 1,
            _ => {}
        }
    }
    count
}

/// A whole file; a pipe or the like could keep who reads it waiting.
fn read_file(file: OwnedFd) -> Result<Vec<u8>, ReceiveError> {
    let status = fstat(&file).map_err(io::Error::from)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(ReceiveError::NoFile);
    }
    let size = u64::try_from(status.st_size).unwrap_or(u64::MAX);
    let mut content = Vec::new();
    if size <= LIMIT as u64 {
        // It may grow meanwhile.
        File::from(file).take(LIMIT as u64 + 1).read_to_end(&mut content)?;
    }
    if size > LIMIT as u64 || content.len() > LIMIT {
        return Err(ReceiveError::TooLarge { size: size.max(content.len() as u64) });
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use serde_json::json;

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("sockets")
    }

    #[test]
    fn documents_of_any_size_arrive() {
        let (ours, theirs) = pair();
        for size in [0, 1, 10_000, largest_packet() - 100, largest_packet(), 3 << 20] {
            let value = json!({"text": "x".repeat(size), "number": 1});
            send(&ours, &value).expect("sent");
            assert_eq!(receive(&theirs).expect("fine").expect("there").value, value, "{size}");
        }
        drop(ours);
        assert!(receive(&theirs).expect("an end is fine").is_none());
    }

    #[test]
    fn descriptors_come_along_up_to_the_kernel_s_limit() {
        let (ours, theirs) = pair();
        let file = File::open("/dev/null").expect("there");
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let all = [file.as_fd(); DESCRIPTORS];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&all)));
        sendmsg(&ours, &[IoSlice::new(b"{}")], &mut ancillary, SendFlags::empty()).expect("sent");
        let message = receive(&theirs).expect("fine").expect("there");
        assert_eq!((message.value, message.descriptors.len()), (json!({}), DESCRIPTORS));
    }

    #[test]
    fn what_is_broken_or_too_much_is_an_error_and_the_next_document_is_fine() {
        let (ours, theirs) = pair();
        let large = |size: usize| {
            let file = File::from(memfd_create("large", MemfdFlags::CLOEXEC).expect("a file"));
            file.set_len(size as u64).expect("it is sparse");
            OwnedFd::from(file)
        };
        let (pipe, _end) = rustix::pipe::pipe().expect("a pipe");
        let garbage = |packet: &[u8], descriptors: &[OwnedFd]| {
            let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            send_packet(&ours, packet, &descriptors).expect("sent");
            receive(&theirs).expect_err("no document").to_string()
        };
        assert!(garbage(b"\xff\0", &[]).contains("no JSON"));
        assert!(garbage(b"[[[", &[]).contains("no JSON"));
        assert!(garbage("[".repeat(1000).as_bytes(), &[]).contains("recursion"));
        assert!(garbage(BY_DESCRIPTOR, &[]).contains("no file"));
        assert!(garbage(BY_DESCRIPTOR, &[pipe]).contains("no file"));
        assert!(garbage(BY_DESCRIPTOR, &[large(0)]).contains("no JSON"));
        assert!(garbage(BY_DESCRIPTOR, &[large(LIMIT + 1)]).contains("67108865 bytes"));
        let mut many = File::from(memfd_create("many", MemfdFlags::CLOEXEC).expect("a file"));
        write!(many, "[{}0]", "0,".repeat(VALUES)).expect("written");
        seek(&many, SeekFrom::Start(0)).expect("it is a file");
        assert!(garbage(BY_DESCRIPTOR, &[many.into()]).contains("more than 4000000 values"));
        assert_eq!(values(br#"{"a,[": ["\",:", {}]}"#), 6);
        send(&ours, &json!(1)).expect("sent");
        assert_eq!(receive(&theirs).expect("fine").expect("there").value, json!(1));
    }
}
