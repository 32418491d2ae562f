//! Texts as token windows.

use std::path::Path;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::Encoder;
use crate::{checkpoint::Error, job::spec::Selection};

/// A text, tokenised once as a whole; special tokens stand at its start and end only, as the tokenizer puts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens(Vec<u32>);

/// Windows of one length cut from a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Token ids, each of them [length].
    pub windows: Vec<Vec<u32>>,
    /// Tokens in a window.
    pub length: usize,
}

impl Tokens {
    /// Tokenises `text` with the tokenizer of a model folder.
    ///
    /// # Errors
    /// [`Error::Invalid`] when tokenizer.json is missing or unreadable, or yields a token the model does not have.
    pub fn encode(folder: &Path, text: &str, vocab_size: usize) -> Result<Self, Error> {
        Encoder::open(folder, vocab_size)?.encode(text, true).map(Self)
    }

    /// Tokens in the text.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// At most `count` windows of `length` tokens: one after the other from the start, or at places drawn with `seed`.
    /// A text shorter than one window gives one short window; of fewer than two tokens, none.
    pub fn cut(&self, count: usize, length: usize, selection: Selection, seed: u64) -> Windows {
        let length = length.min(self.0.len());
        if length < 2 {
            return Windows { windows: Vec::new(), length };
        }
        let starts: Vec<usize> = match selection {
            Selection::First => (0..self.0.len() / length).take(count).map(|index| index * length).collect(),
            Selection::Random => {
                let mut rng = StdRng::seed_from_u64(seed);
                (0..count).map(|_| rng.random_range(0..=self.0.len() - length)).collect()
            }
        };
        Windows { windows: starts.into_iter().map(|start| self.0[start..start + length].to_vec()).collect(), length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> Tokens {
        Tokens((0..10).collect())
    }

    #[test]
    fn first_windows_do_not_overlap_and_leave_the_rest_out() {
        let cut = text().cut(5, 4, Selection::First, 0);
        assert_eq!(cut.windows, [[0, 1, 2, 3], [4, 5, 6, 7]]);
    }

    #[test]
    fn random_windows_follow_the_seed() {
        let cut = |seed| text().cut(50, 4, Selection::Random, seed).windows;
        assert_eq!(cut(1), cut(1));
        assert_ne!(cut(1), cut(2));
        assert!(cut(1).iter().all(|window| window.windows(2).all(|pair| pair[1] == pair[0] + 1)));
        assert!(cut(1).iter().any(|window| window[3] == 9), "the last token is within reach");
    }

    #[test]
    fn a_short_text_gives_one_short_window_or_none() {
        assert_eq!(text().cut(3, 100, Selection::First, 0), Windows { windows: vec![(0..10).collect()], length: 10 });
        assert!(Tokens(vec![1]).cut(3, 100, Selection::Random, 0).windows.is_empty());
    }
}
