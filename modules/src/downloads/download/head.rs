//! What comes before the body of an answer.
//!
//! The HTTP library takes 128 headers, in any number of bytes and as many interim answers as a server likes to send;
//! here a head may have any number of headers and a bounded size, and only those that a download needs go on to the
//! library.

use std::time::{Duration, Instant};

use ureq::Error;
use ureq::unversioned::transport::time::Duration as Limit;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// How many bytes may come before a body, interim answers included.
const LONGEST: usize = 100 << 10;

/// The headers that a download needs.
const NEEDED: [&str; 8] = [
    "connection",
    "content-length",
    "content-range",
    "etag",
    "last-modified",
    "location",
    "retry-after",
    "transfer-encoding",
];

/// Makes connections on which heads are bounded. The last in a chain of connectors.
#[derive(Debug)]
pub(super) struct LeanHeads;

impl<In: Transport> Connector<In> for LeanHeads {
    type Out = Lean<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|transport| Lean { transport, awaited: None }))
    }
}

/// A connection on which heads are bounded.
#[derive(Debug)]
pub(super) struct Lean<T> {
    transport: T,
    /// While a head is awaited: how many bytes of interim answers have come.
    awaited: Option<usize>,
}

impl<T: Transport> Lean<T> {
    /// Takes the head that has come whole, if one has, and returns whether an answer can be read.
    fn take_head(&mut self, interim: &mut usize) -> Result<bool, Error> {
        let buffers = self.transport.buffers();
        loop {
            let input = buffers.input();
            let end = end_of_head(input);
            let length = *interim + end.unwrap_or(input.len());
            if length > LONGEST {
                return Err(Error::LargeResponseHeader(length, LONGEST));
            }
            let Some(end) = end else { return Ok(false) };
            let input = input.to_vec();
            let is_interim = input.get(9) == Some(&b'1');
            let head = if is_interim { Vec::new() } else { lean(&input[..end]) };
            let rest = [head, input[end..].to_vec()].concat();
            buffers.input_consume(input.len());
            buffers.input_append_buf()[..rest.len()].copy_from_slice(&rest);
            buffers.input_appended(rest.len());
            if !is_interim {
                return Ok(true);
            }
            *interim = length;
        }
    }
}

impl<T: Transport> Transport for Lean<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.transport.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        // What asks a proxy for a tunnel, and what goes through it, is something else.
        if self.transport.buffers().output()[..amount].starts_with(b"GET ") {
            self.awaited = Some(0);
        }
        self.transport.transmit_output(amount, timeout)
    }

    fn maybe_await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        match self.awaited {
            Some(_) => self.await_input(timeout),
            None => self.transport.maybe_await_input(timeout),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let Some(mut interim) = self.awaited else { return self.transport.await_input(timeout) };
        let start = Instant::now();
        while !self.take_head(&mut interim)? {
            let after = match timeout.after {
                Limit::Exact(after) => Limit::Exact(after.saturating_sub(start.elapsed())),
                never => never,
            };
            if after == Limit::Exact(Duration::ZERO) {
                return Err(Error::Timeout(timeout.reason));
            }
            if !self.transport.await_input(NextTimeout { after, ..timeout })? {
                return Ok(false);
            }
        }
        self.awaited = None;
        Ok(true)
    }

    fn is_open(&mut self) -> bool {
        self.transport.is_open()
    }

    fn is_tls(&self) -> bool {
        self.transport.is_tls()
    }
}

/// Where the empty line after the headers ends.
pub(crate) fn end_of_head(input: &[u8]) -> Option<usize> {
    let breaks = input.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let mut ends = breaks.filter_map(|at| {
        let rest = &input[at..];
        [&b"\r\n"[..], b"\n"].iter().find(|end| rest.starts_with(end)).map(|end| at + end.len())
    });
    ends.next()
}

/// A head with its status and the needed headers alone. The reason behind the status is whatever a server likes to say.
pub(crate) fn lean(head: &[u8]) -> Vec<u8> {
    let mut lines = head.split_inclusive(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    // With the end that it has: what is kept must fit where the head was.
    let (line, end) = first.split_at(first.trim_ascii_end().len());
    let mut kept = line.get(.."HTTP/1.1 200".len()).map_or(first.to_vec(), |status| [status, end].concat());
    for line in lines {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let is_needed = NEEDED.iter().any(|needed| name.eq_ignore_ascii_case(needed.as_bytes()));
        if is_needed || line.trim_ascii().is_empty() {
            kept.extend_from_slice(line);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_an_empty_line() {
        assert_eq!(end_of_head(b"HTTP/1.1 200 OK\r\na: b\r\n\r\nbody\r\n\r\n"), Some(25));
        assert_eq!(end_of_head(b"HTTP/1.1 200 OK\n\nbody"), Some(17));
        assert_eq!(end_of_head(b"HTTP/1.1 200 OK\r\na: b\r\n"), None);
    }

    #[test]
    fn only_what_a_download_needs_is_kept() {
        let head = b"HTTP/1.1 404 \x1b[2J\r\nX: y\r\nContent-Length: 5\r\nSet-Cookie: a\r\n\tb\r\nETAG: \"1\"\r\n\r\n";
        assert_eq!(lean(head), b"HTTP/1.1 404\r\nContent-Length: 5\r\nETAG: \"1\"\r\n\r\n");
    }
}
