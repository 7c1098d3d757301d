//! Output that is told apart by whose it is: each line behind a prefix.

/// The longest line that is kept whole; of a longer one the rest comes as lines of its own.
const LONGEST: usize = 64 << 10;

/// Turns pieces of output into lines with a prefix.
#[derive(Debug)]
pub(super) struct Lines {
    prefix: String,
    pending: Vec<u8>,
}

impl Lines {
    /// Lines behind `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), pending: Vec::new() }
    }

    /// Says the lines that `piece` completes.
    pub(super) fn push(&mut self, piece: &[u8], say: &mut dyn FnMut(&str)) {
        self.pending.extend_from_slice(piece);
        let mut start = 0;
        while let Some(end) = self.pending[start..].iter().position(|byte| *byte == b'\n') {
            self.line(&self.pending[start..start + end], say);
            start += end + 1;
        }
        self.pending.drain(..start);
        if self.pending.len() > LONGEST {
            self.finish(say);
        }
    }

    /// Says what is left at the end.
    pub(super) fn finish(&mut self, say: &mut dyn FnMut(&str)) {
        if !self.pending.is_empty() {
            let rest = std::mem::take(&mut self.pending);
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
