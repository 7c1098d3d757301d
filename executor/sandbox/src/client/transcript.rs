//! What a stage wrote, within bounds.

use std::collections::VecDeque;

/// Keeps what a stage writes: all of it up to a limit, beyond that the beginning and the end.
#[derive(Debug)]
pub struct Transcript {
    head: String,
    tail: VecDeque<u8>,
    limit: usize,
    left_out: u64,
}

impl Default for Transcript {
    /// One that keeps 4 MiB.
    fn default() -> Self {
        Self::new(4 << 20)
    }
}

impl Transcript {
    /// One that keeps about `limit` bytes, half of them from the beginning.
    pub fn new(limit: usize) -> Self {
        Self { head: String::new(), tail: VecDeque::new(), limit, left_out: 0 }
    }

    /// Adds a piece.
    pub fn push(&mut self, mut piece: &str) {
        let half = self.limit / 2;
        if self.tail.is_empty() && self.left_out == 0 {
            let fits = piece.floor_char_boundary(half.saturating_sub(self.head.len()));
            self.head.push_str(&piece[..fits]);
            piece = &piece[fits..];
        }
        self.tail.extend(piece.as_bytes());
        let excess = self.tail.len().saturating_sub(half);
        self.tail.drain(..excess);
        self.left_out += excess as u64;
    }

    /// All that was kept, with a line that says how much is missing in between.
    pub fn text(&self) -> String {
        if self.left_out == 0 {
            let (front, back) = self.tail.as_slices();
            return self.head.clone() + &String::from_utf8_lossy(&[front, back].concat());
        }
        // The end begins with its first whole line, or where lines are longer than it, its first whole character.
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        let line = tail.iter().position(|byte| *byte == b'\n').map(|end| end + 1).filter(|start| *start < tail.len());
        let character = || tail.iter().position(|byte| byte & 0xC0 != 0x80).unwrap_or(tail.len());
        let start = line.unwrap_or_else(character);
        let left_out = self.left_out + start as u64;
        format!("{}\n[… {left_out} bytes left out …]\n{}", self.head, String::from_utf8_lossy(&tail[start..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_to_its_limit_a_transcript_is_whole() {
        let mut transcript = Transcript::new(20);
        for piece in ["one\n", "", "zwölf\n", "three\n"] {
            transcript.push(piece);
        }
        assert_eq!(transcript.text(), "one\nzwölf\nthree\n");
    }

    #[test]
    fn beyond_it_beginning_and_end_are_kept() {
        let mut transcript = Transcript::new(20);
        for number in 0..1000 {
            transcript.push(&format!("{number}\n"));
        }
        assert_eq!(transcript.text(), "0\n1\n2\n3\n4\n\n[… 3872 bytes left out …]\n998\n999\n");
        let mut transcript = Transcript::new(20);
        transcript.push(&"ä".repeat(1000));
        assert_eq!(transcript.text(), format!("{}\n[… 1980 bytes left out …]\n{}", "ä".repeat(5), "ä".repeat(5)));
    }
}
