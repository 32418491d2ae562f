//! Tasks that score whole documents: each is cut into windows of the model's longest context, and every token is
//! scored once, with as much before it as its window has.

use std::path::Path;

use super::{
    Asking, Document, Documents, Encoder,
    datasets::load_pages,
    detokenize,
    documents::{Sequence, Writer},
};
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
    /// The documents' windows, one document after the other.
    pub windows: Documents<Document>,
    words: u64,
    bytes: u64,
}

impl Rolling {
    /// Reads a task's documents and encodes them for a model, into the file `place`.
    ///
    /// # Errors
    /// [`Error::DatasetNotFound`] says what to put where, [`Error::InvalidDataset`] what is wrong with a file; and when
    /// the tokenizer fails or the file cannot be written.
    pub fn read(
        task: RollingTask,
        asking: Asking,
        encoder: &Encoder,
        (datasets_dir, hub): (&Path, &HubSettings),
        place: &Path,
    ) -> Result<Self, Error> {
        let mut pages = Vec::new();
        load_pages(task, SPLIT, datasets_dir, hub, &mut |page| pages.push(page))?;
        pages.truncate(asking.limit.unwrap_or(usize::MAX));
        if pages.is_empty() {
            return Err(Error::InvalidDataset(format!("{task} ({SPLIT}) has no documents")));
        }
        let first = encoder.first_token()?;
        let mut writer = Writer::create(place)?;
        for page in &pages {
            let tokens = encoder.encode_prompt(&detokenize::wikitext(page))?;
            cut(first, &tokens, asking.longest).iter().try_for_each(|window| writer.push(window))?;
        }
        Ok(Self {
            task,
            split: SPLIT,
            documents: pages.len(),
            windows: writer.finish()?,
            words: pages.iter().map(|page| detokenize::count_words(page)).sum(),
            bytes: pages.iter().map(|page| page.len() as u64).sum(),
        })
    }

    /// The scores from the log-likelihood of all windows together.
    pub fn scores(&self, log_likelihood: f64) -> RollingScores {
        RollingScores::of(log_likelihood, self.words, self.bytes)
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
        let tokens = whole[end.saturating_sub(longest)..=end].to_vec();
        windows.push(Document::of(Sequence { tokens, scored: end - scored }));
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
        let parts = |longest| -> Vec<(Vec<u32>, Vec<u32>)> {
            let windows = cut(0, &tokens, longest);
            let parts = |sequence: &Sequence| (sequence.read().to_vec(), sequence.targets().to_vec());
            windows.iter().flat_map(|window| &window.sequences).map(parts).collect()
        };
        assert_eq!(parts(10), [(vec![0, 1, 2, 3, 4, 5, 6], tokens.to_vec())]);
        assert_eq!(
            parts(3),
            [(vec![0, 1, 2], vec![1, 2, 3]), (vec![3, 4, 5], vec![4, 5, 6]), (vec![4, 5, 6], vec![7])]
        );
        assert!(cut(0, &[], 3).is_empty());
    }
}
