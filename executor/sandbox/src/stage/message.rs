//! How the two sides of the process boundary talk: osbc and its helper.
//!
//! On the helper's standard input osbc asks for stages: a packet of one byte with a stage's ends, which are a socket
//! and the pipe that the stage's output goes to. On that socket the worker first sends a handle on itself; then it gets
//! the request, sends what services write, and last the reply. Each side detects the other's death by the end of the
//! socket.
//!
//! A message is its length (eight bytes, little-endian), then JSON.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socket_with,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest message that is read, in bytes: options of a manifest of a gigabyte.
const LONGEST: u64 = 1 << 30;

/// The length of a message, if it is one.
fn within(length: u64) -> io::Result<u64> {
    let too_long = || io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes"));
    (length <= LONGEST).then_some(length).ok_or_else(too_long)
}

/// A message as bytes.
///
/// # Errors
/// It has no JSON form.
pub(crate) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 8];
    serde_json::to_writer(&mut bytes, message)?;
    let length = (bytes.len() - 8) as u64;
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// Writes a message.
///
/// # Errors
/// The other side is gone.
pub(crate) fn send(mut to: impl Write, message: &impl Serialize) -> io::Result<()> {
    to.write_all(&encode(message)?)
}

/// Writes a message with a descriptor to a socket.
///
/// # Errors
/// The other side is gone.
pub(crate) fn send_with(to: impl AsFd, message: &impl Serialize, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let bytes = encode(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let sent = sendmsg(to, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Reads a message.
///
/// # Errors
/// It ends too early or is not what was expected.
pub(crate) fn receive<T: DeserializeOwned>(mut from: impl Read) -> io::Result<T> {
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    let length = within(u64::from_le_bytes(length))?;
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// The message that `bytes` begin with, if they hold all of it, and how long it is there.
///
/// # Errors
/// It is not what was expected.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<Option<(T, usize)>> {
    let Some((length, rest)) = bytes.split_first_chunk() else { return Ok(None) };
    match usize::try_from(within(u64::from_le_bytes(*length))?) {
        Ok(length) if length <= rest.len() => Ok(Some((serde_json::from_slice(&rest[..length])?, 8 + length))),
        _ => Ok(None),
    }
}

/// The worker's ends of what a stage is connected by.
#[derive(Debug)]
pub(crate) struct StageEnds {
    /// Where the request comes from and the reply goes to.
    pub(crate) socket: UnixStream,
    /// Where the output goes.
    pub(crate) output: OwnedFd,
}

/// Asks the helper for a stage.
///
/// # Errors
/// The helper is gone.
pub(crate) fn send_ends(control: impl AsFd, ends: &StageEnds) -> io::Result<()> {
    send_byte(control, &[ends.socket.as_fd(), ends.output.as_fd()])
}

/// Waits until a stage is asked for; `None` if the other side is gone.
///
/// # Errors
/// What came is something else.
pub(crate) fn receive_ends(control: impl AsFd) -> io::Result<Option<StageEnds>> {
    let (bytes, descriptors) = receive_byte(control)?;
    match <[OwnedFd; 2]>::try_from(descriptors) {
        Ok([socket, output]) => Ok(Some(StageEnds { socket: socket.into(), output })),
        Err(_) if bytes == 0 => Ok(None),
        Err(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Passes a descriptor on, or says that there is none.
///
/// # Errors
/// The other side is gone.
pub(crate) fn send_descriptor(socket: impl AsFd, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    send_byte(socket, descriptor.as_slice())
}

/// Takes the descriptor that the other side passes on; `None` if that one ended before.
///
/// # Errors
/// There is nothing to read yet, on a socket that does not block.
pub(crate) fn receive_descriptor(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    Ok(receive_byte(socket)?.1.pop())
}

/// Sends one byte and the descriptors that it carries, at most three.
///
/// # Errors
/// The other side is gone.
pub(crate) fn send_byte(socket: impl AsFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    sendmsg(socket, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one byte, or none at the end, and the descriptors that came with it.
///
/// # Errors
/// There is nothing to read yet, on a socket that does not block.
pub(crate) fn receive_byte(socket: impl AsFd) -> io::Result<(usize, Vec<OwnedFd>)> {
    receive_some(socket, &mut [0])
}

/// Receives as many bytes as there are and `piece` has room for, none at the end, and the descriptors that came with
/// them.
///
/// # Errors
/// There is nothing to read yet, on a socket that does not block.
pub(crate) fn receive_some(socket: impl AsFd, piece: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let received = recvmsg(&socket, &mut [IoSliceMut::new(piece)], &mut ancillary, RecvFlags::CMSG_CLOEXEC);
        match received {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            descriptors.extend(more);
        }
    }
    Ok((received.bytes, descriptors))
}

/// A socket for either side.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// A short path of the socket `path`, which lies in an open directory.
pub(crate) fn address(directory: &OwnedFd, path: &Path) -> PathBuf {
    let open = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
    open.join(path.file_name().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use osbc_ir::Resource;
    use serde_json::json;

    use super::*;
    use crate::request::{StageFailure, StageReply};

    #[test]
    fn every_reply_survives_the_way() {
        let failures = [
            None,
            Some(StageFailure::Module("no".into())),
            Some(StageFailure::Exited(3)),
            Some(StageFailure::Environment("no".into())),
            Some(StageFailure::TimedOut(Duration::from_millis(1500))),
            Some(StageFailure::Died("no".into())),
            Some(StageFailure::Exhausted(Resource::Memory, "no".into())),
            Some(StageFailure::Interrupted),
            Some(StageFailure::NeedsPlainTree),
        ];
        for failure in failures {
            let metadata = serde_json::from_str(r#"{"a": 123456789012345678901234567890, "b": [1.50]}"#);
            let metadata = metadata.expect("JSON");
            let (written, memory) = (Some(4096), Some(1 << 20));
            let reply = StageReply { metadata, failure, hint: None, exception: None, written, memory };
            let bytes = encode(&reply).expect("has a JSON form");
            assert_eq!(receive::<StageReply>(&bytes[..]).expect("is whole"), reply);
            assert_eq!(decode(&bytes).expect("is whole"), Some((reply, bytes.len())));
            assert_eq!(decode::<StageReply>(&bytes[..bytes.len() - 1]).expect("is a beginning"), None);
            assert_eq!(decode::<StageReply>(&bytes[..3]).expect("is a beginning"), None);
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let bytes = encode(&json!({"failure": "what?"})).expect("has a JSON form");
        assert!(decode::<StageReply>(&bytes).is_err());
        assert!(receive::<StageReply>(&bytes[..bytes.len() - 1]).is_err());
    }
}
