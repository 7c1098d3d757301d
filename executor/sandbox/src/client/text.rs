//! Bytes that come in pieces, as text.

/// Turns pieces of UTF-8 into text; a character that is cut between two pieces stays whole, what is invalid is replaced.
#[derive(Debug, Default)]
pub(crate) struct Utf8Stream {
    /// The beginning of a character.
    pending: Vec<u8>,
}

impl Utf8Stream {
    /// Passes on the text of `piece`, as far as it has whole characters.
    pub(crate) fn push(&mut self, piece: &[u8], output: &dyn Fn(&str)) {
        let joined;
        let mut rest = if self.pending.is_empty() {
            piece
        } else {
            joined = [std::mem::take(&mut self.pending).as_slice(), piece].concat();
            &joined
        };
        while !rest.is_empty() {
            let error = match str::from_utf8(rest) {
                Ok(text) => return output(text),
                Err(error) => error,
            };
            let (valid, after) = rest.split_at(error.valid_up_to());
            if !valid.is_empty() {
                output(&String::from_utf8_lossy(valid));
            }
            match error.error_len() {
                Some(length) => {
                    output("\u{fffd}");
                    rest = &after[length..];
                }
                None => {
                    self.pending = after.to_vec();
                    return;
                }
            }
        }
    }

    /// Passes on what is left at the end.
    pub(crate) fn finish(&mut self, output: &dyn Fn(&str)) {
        if !std::mem::take(&mut self.pending).is_empty() {
            output("\u{fffd}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;

    fn joined(pieces: &[&[u8]]) -> String {
        let text = RefCell::new(String::new());
        let mut stream = Utf8Stream::default();
        let output = |piece: &str| text.borrow_mut().push_str(piece);
        for piece in pieces {
            stream.push(piece, &output);
        }
        stream.finish(&output);
        text.into_inner()
    }

    proptest! {
        #[test]
        fn wherever_it_is_cut_the_text_is_that_of_the_whole(
            bytes in prop_oneof![any::<Vec<u8>>(), "[a-zä€😀\n]{0,40}".prop_map(String::into_bytes)],
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let ends = cuts.iter().copied().chain([bytes.len()]);
            let pieces: Vec<&[u8]> = [0].into_iter().chain(cuts.iter().copied()).zip(ends).map(|(a, b)| &bytes[a..b]).collect();
            prop_assert_eq!(joined(&pieces), String::from_utf8_lossy(&bytes));
        }
    }
}
