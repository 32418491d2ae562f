//! Tasks that score whole documents: each is cut into windows of the model's longest context, and every token is
//! scored once, with as much before it as its window has.

use std::path::Path;

use super::{Asking, Document, Encoder, datasets::load_pages, detokenize};
use crate::{
    checkpoint::{Error, HubSettings},
    job::{RollingScores, RollingTask},
};

/// The split that is scored.
const SPLIT: &str = "test";

/// A task whose documents are windows of tokens.
pub struct Rolling {
    /// Which task.
    pub task: RollingTask,
    /// The split it is scored on.
    pub split: &'static str,
    /// Documents.
    pub documents: usize,
    /// Tokens in the longest window.
    pub window: usize,
    /// The documents' windows, one document after the other.
    pub windows: Vec<Document>,
    words: u64,
    bytes: u64,
}

impl Rolling {
    /// Reads a task's documents and encodes them for a model.
    ///
    /// # Errors
    /// [`Error::DatasetNotFound`] says what to put where, [`Error::InvalidDataset`] what is wrong with a file; and when
    /// the tokenizer fails.
    pub fn read(
        task: RollingTask,
        asking: Asking,
        encoder: &Encoder,
        datasets_dir: &Path,
        hub: &HubSettings,
    ) -> Result<Self, Error> {
        let mut pages = Vec::new();
        load_pages(task, SPLIT, datasets_dir, hub, &mut |page| pages.push(page))?;
        pages.truncate(asking.limit.unwrap_or(usize::MAX));
        if pages.is_empty() {
            return Err(Error::InvalidDataset(format!("{task} ({SPLIT}) has no documents")));
        }
        let first = encoder.first_token()?;
        let mut windows = Vec::new();
        for page in &pages {
            let tokens = encoder.encode_prompt(&detokenize::wikitext(page))?;
            windows.extend(cut(first, &tokens, asking.longest));
        }
        Ok(Self {
            task,
            split: SPLIT,
            documents: pages.len(),
            window: windows.iter().map(Document::longest).max().unwrap_or(0),
            windows,
            words: pages.iter().map(|page| detokenize::count_words(page)).sum(),
            bytes: pages.iter().map(|page| page.len() as u64).sum(),
        })
    }

    /// The scores from every window's log-likelihood.
    pub fn scores(&self, log_likelihoods: &[Vec<f64>]) -> RollingScores {
        RollingScores::of(log_likelihoods.iter().flatten().sum(), self.words, self.bytes)
    }
}

/// Windows of at most `longest` tokens in which every token of a document is scored once; `first` stands before it. The
/// last window reaches back over what is scored already, so that it is as long as the others.
fn cut(first: u32, tokens: &[u32], longest: usize) -> Vec<Document> {
    let whole = [&[first], tokens].concat();
    let mut windows = Vec::with_capacity(tokens.len().div_ceil(longest));
    let mut scored = 0;
    while scored < tokens.len() {
        let end = tokens.len().min(scored + longest);
        let read = whole[end.saturating_sub(longest)..end].to_vec();
        windows.push(Document::sequence(read, tokens[scored..end].to_vec()));
        scored = end;
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    // from lm_eval.utils import get_rolling_token_windows as windows
    // print(list(windows([1, 2, 3, 4, 5, 6, 7], 0, max_seq_len, 1)))
    #[test]
    fn windows_are_those_of_lm_eval() {
        let tokens = [1, 2, 3, 4, 5, 6, 7];
        assert_eq!(cut(0, &tokens, 10), [Document::sequence(vec![0, 1, 2, 3, 4, 5, 6], tokens.to_vec())]);
        assert_eq!(
            cut(0, &tokens, 3),
            [
                Document::sequence(vec![0, 1, 2], vec![1, 2, 3]),
                Document::sequence(vec![3, 4, 5], vec![4, 5, 6]),
                Document::sequence(vec![4, 5, 6], vec![7]),
            ]
        );
        assert!(cut(0, &[], 3).is_empty());
    }
}
