//! The output of services: each line behind a prefix that says whose it is.

/// The longest line that is kept whole; of a longer one the rest comes as lines of its own.
const LONGEST: usize = 64 << 10;

/// Turns pieces of output into lines with a prefix. A line ends with a line feed, a carriage return, or both.
#[derive(Debug)]
pub(crate) struct Lines {
    prefix: String,
    pending: Vec<u8>,
    /// Whether the last line ended with a carriage return, which a line feed may belong to.
    returned: bool,
}

impl Lines {
    /// Lines behind `prefix`.
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), pending: Vec::new(), returned: false }
    }

    /// Says the lines that `piece` completes.
    pub(crate) fn push(&mut self, piece: &[u8], say: &mut dyn FnMut(&str)) {
        self.pending.extend_from_slice(piece);
        let mut start = 0;
        while let Some(length) = self.pending[start..].iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let end = self.pending[start + length];
            let is_rest = std::mem::replace(&mut self.returned, end == b'\r') && length == 0 && end == b'\n';
            if !is_rest {
                self.line(&self.pending[start..start + length], say);
            }
            start += length + 1;
        }
        self.pending.drain(..start);
        if self.pending.len() > LONGEST {
            self.finish(say);
        }
    }

    /// Says what is left at the end.
    pub(crate) fn finish(&mut self, say: &mut dyn FnMut(&str)) {
        if !self.pending.is_empty() {
            let rest = std::mem::take(&mut self.pending);
            self.returned = false;
            self.line(&rest, say);
        }
    }

    fn line(&self, line: &[u8], say: &mut dyn FnMut(&str)) {
        say(&format!("{}{}\n", self.prefix, String::from_utf8_lossy(line)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pieces: &[&[u8]]) -> String {
        let mut text = String::new();
        let mut say = |line: &str| text.push_str(line);
        let mut lines = Lines::new("p: ");
        pieces.iter().for_each(|piece| lines.push(piece, &mut say));
        lines.finish(&mut say);
        text
    }

    #[test]
    fn every_line_has_the_prefix_wherever_it_was_cut() {
        assert_eq!(said(&[b"a\nb", b"", b"c\n\nd"]), "p: a\np: bc\np: \np: d\n");
        assert_eq!(said(&["ä\n".as_bytes(), b"\xff"]), "p: ä\np: \u{fffd}\n");
        assert_eq!(said(&[b"1%\r2%\r\n3%\r", b"\n\n4%\r", b"5%"]), "p: 1%\np: 2%\np: 3%\np: \np: 4%\np: 5%\n");
        assert_eq!(said(&[]), "");
    }

    #[test]
    fn a_line_without_an_end_fills_no_memory() {
        let piece = vec![b'x'; LONGEST];
        let text = said(&[&piece, &piece, b"y\n"]);
        assert_eq!(text.lines().count(), 2);
        assert_eq!(text.matches('x').count(), 2 * LONGEST);
    }
}
