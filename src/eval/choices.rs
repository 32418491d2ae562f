//! Multiple choice: the log-likelihood of every choice, and what it says about the model.

use std::path::Path;

use rayon::prelude::*;
use serde_json::Value;

use super::{
    Encoder,
    datasets::load_records,
    few_shot::{FewShot, fingerprint},
    tasks::{self, DELIMITER, Question},
};
use crate::{
    checkpoint::{Error, HubSettings},
    job::{TaskName, TaskScores},
    model::{Decoder, Packed},
};

/// Tokens that go through the model at once.
const TOKENS_AT_ONCE: usize = 2048;

/// A task whose documents are tokens.
pub struct Exam {
    /// Which task.
    pub task: TaskName,
    /// The split it is scored on.
    pub split: &'static str,
    /// Examples before each question, and the split they come from.
    pub few_shot: Option<(usize, &'static str)>,
    /// The documents.
    pub documents: Vec<Document>,
}

/// A question as tokens. Its sequences share the trunk.
#[derive(Debug, PartialEq, Eq)]
pub struct Document {
    trunk: Vec<u32>,
    branches: Vec<Branch>,
    lengths: Vec<usize>,
    gold: Option<usize>,
}

/// A choice: what the model reads behind the trunk, and the last tokens it should have said.
#[derive(Debug, PartialEq, Eq)]
struct Branch {
    tokens: Vec<u32>,
    targets: Vec<u32>,
}

/// Which documents of a task, and how they are asked.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// At most so many documents, from the first.
    pub limit: Option<usize>,
    /// Solved examples before each.
    pub num_fewshot: usize,
    /// The model's longest context.
    pub longest: usize,
}

impl Exam {
    /// Reads a task's documents and encodes them for a model.
    ///
    /// # Errors
    /// As [`load_records`], and when the tokenizer fails.
    pub fn read(
        task: TaskName,
        asking: Asking,
        encoder: &Encoder,
        datasets_dir: &Path,
        hub: &HubSettings,
    ) -> Result<Self, Error> {
        let split = tasks::split(task);
        let mut questions = Vec::new();
        let is_local = load_records(task.into(), split, datasets_dir, hub, &mut |record: Value| {
            if asking.limit.is_none_or(|limit| questions.len() < limit) {
                let fingerprint = fingerprint(&record);
                questions.push((fingerprint, tasks::question(task, record)?));
            }
            Ok(())
        })?;
        if questions.is_empty() {
            return Err(Error::InvalidDataset(format!("{task} ({split}) has no documents")));
        }
        let mut few_shot = None;
        if asking.num_fewshot > 0 {
            let mut examples = FewShot::prepare(task, asking.num_fewshot, is_local, datasets_dir, hub)?;
            for (fingerprint, question) in &mut questions {
                question.put_before(&examples.next(*fingerprint));
            }
            few_shot = Some((asking.num_fewshot, examples.split));
        }
        let encode = |(_, question): (u64, Question)| Document::encode(question, encoder, asking.longest);
        let documents = questions.into_par_iter().map(encode).collect::<Result<_, _>>()?;
        Ok(Self { task, split, few_shot, documents })
    }

    /// Accuracies from the log-likelihoods of every document's choices, as lm-eval counts them.
    pub fn scores(&self, log_likelihoods: &[Vec<f64>]) -> TaskScores {
        let (mut right, mut right_normalised) = (0, 0);
        for (document, scores) in self.documents.iter().zip(log_likelihoods) {
            let per_character = scores.iter().zip(&document.lengths).map(|(score, &length)| normalised(*score, length));
            right += usize::from(document.gold == likeliest(scores.iter().copied()));
            right_normalised += usize::from(document.gold == likeliest(per_character));
        }
        let (acc, acc_stderr) = mean(right, self.documents.len());
        let (mut acc_norm, mut acc_norm_stderr) = (None, None);
        if tasks::has_normalised_accuracy(self.task) {
            let (mean, stderr) = mean(right_normalised, self.documents.len());
            (acc_norm, acc_norm_stderr) = (Some(mean), stderr);
        }
        TaskScores { acc, acc_stderr, acc_norm, acc_norm_stderr }
    }
}

/// The first documents, as many as go through the model together.
pub fn first_batch(documents: &[Document]) -> &[Document] {
    let mut tokens = 0;
    let fits = |document: &&Document| {
        tokens += document.trunk.len() + document.branches.iter().map(|branch| branch.tokens.len()).sum::<usize>();
        tokens <= TOKENS_AT_ONCE
    };
    let count = documents.iter().take_while(fits).count().max(1);
    &documents[..count.min(documents.len())]
}

impl Question {
    fn put_before(&mut self, examples: &str) {
        for (context, _) in &mut self.pairs {
            context.insert_str(0, examples);
        }
    }
}

impl Document {
    /// A sequence that is `read` as a whole, and the last tokens that should have been said.
    pub(super) fn sequence(read: Vec<u32>, targets: Vec<u32>) -> Self {
        // A trunk is attended from in tiles, however long it is.
        Self { trunk: read, branches: vec![Branch { tokens: Vec::new(), targets }], lengths: Vec::new(), gold: None }
    }

    /// Tokens of its longest sequence.
    pub fn longest(&self) -> usize {
        self.trunk.len() + self.branches.iter().map(|branch| branch.tokens.len()).max().unwrap_or(0)
    }

    fn encode(question: Question, encoder: &Encoder, longest: usize) -> Result<Self, Error> {
        let mut sequences = Vec::with_capacity(question.pairs.len());
        for (context, continuation) in &question.pairs {
            sequences.push(encode_pair(encoder, context, &format!("{DELIMITER}{continuation}"))?);
        }
        let mut choices: Vec<(Vec<u32>, Vec<u32>)> =
            sequences.into_iter().map(|(tokens, context)| cut(tokens, context, longest)).collect();
        let shared = shared_beginning(&choices);
        let trunk = choices.first().map(|(read, _)| read[..shared].to_vec()).unwrap_or_default();
        let branches = choices.drain(..).map(|(read, targets)| Branch { tokens: read[shared..].to_vec(), targets });
        let branches = branches.collect();
        Ok(Self { trunk, branches, lengths: question.lengths, gold: question.gold })
    }
}

/// The tokens of both parts, and how many belong to the context. White space at its end goes to the continuation, and
/// the two are encoded as one text, so that a token that spans the boundary is scored with the continuation.
fn encode_pair(encoder: &Encoder, context: &str, continuation: &str) -> Result<(Vec<u32>, usize), Error> {
    let stripped = context.trim_end_matches(is_space);
    if context.is_empty() {
        let (first, tokens) = (encoder.first_token()?, encoder.encode(continuation, false)?);
        let begins = tokens.first() == Some(&first);
        return Ok((if begins { tokens } else { [&[first], tokens.as_slice()].concat() }, 1));
    }
    let whole = encoder.encode_prompt(&format!("{context}{continuation}"))?;
    let length = encoder.encode_prompt(stripped)?.len();
    Ok((whole, length))
}

/// Python's white space: four control characters more than Unicode's.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// What the model reads of a sequence, at most `longest` tokens from its end, and the tokens to score.
fn cut(mut tokens: Vec<u32>, context: usize, longest: usize) -> (Vec<u32>, Vec<u32>) {
    // A sequence begins with something that is not scored, as the first token has nothing before it.
    let mut start = context.clamp(1, tokens.len().max(1));
    let excess = tokens.len().saturating_sub(longest + 1);
    tokens.drain(..excess);
    start = start.saturating_sub(excess).max(1).min(tokens.len());
    let targets = tokens.split_off(start);
    let mut read = tokens;
    read.extend_from_slice(&targets[..targets.len().saturating_sub(1)]);
    (read, targets)
}

/// Tokens that all sequences begin with.
fn shared_beginning(choices: &[(Vec<u32>, Vec<u32>)]) -> usize {
    let Some(((first, _), others)) = choices.split_first() else { return 0 };
    let common = |other: &[u32]| first.iter().zip(other).take_while(|(a, b)| a == b).count();
    others.iter().map(|(read, _)| common(read)).min().unwrap_or(first.len())
}

/// The log-likelihood of every choice of every document.
///
/// # Errors
/// Whatever `observe`, called after each layer, returns to end early, or the device's own failure.
pub fn log_likelihoods(
    decoder: &Decoder,
    documents: &[Document],
    observe: &mut dyn FnMut() -> Result<(), Error>,
) -> Result<Vec<Vec<f64>>, Error> {
    let (mut packed, mut rows, mut targets) = (Packed::default(), Vec::new(), Vec::new());
    for document in documents {
        let places = packed.push(&document.trunk, document.branches.iter().map(|branch| branch.tokens.as_slice()));
        for (index, branch) in document.branches.iter().enumerate() {
            let end = document.trunk.len() + branch.tokens.len();
            rows.extend((end - branch.targets.len()..end).map(|position| places.of(index, position) as u32));
            targets.extend_from_slice(&branch.targets);
        }
    }
    let hidden = decoder.forward_packed(&packed, observe)?;
    let mut scores = decoder.head.log_probabilities(&hidden, &rows, &targets)?.into_iter();
    let of_branch = |branch: &Branch| scores.by_ref().take(branch.targets.len()).sum();
    let mut of_branch = of_branch;
    Ok(documents.iter().map(|document| document.branches.iter().map(&mut of_branch).collect()).collect())
}

/// Per character; an empty choice is never the likeliest.
fn normalised(log_likelihood: f64, length: usize) -> f64 {
    if length == 0 { f64::NEG_INFINITY } else { log_likelihood / length as f64 }
}

/// The first of the largest.
fn likeliest(scores: impl Iterator<Item = f64>) -> Option<usize> {
    let better = |best: (usize, f64), next: (usize, f64)| if next.1 > best.1 { next } else { best };
    scores.enumerate().reduce(better).map(|(index, _)| index)
}

/// The share of right answers and its standard error, from the sample's variance; none of a single document.
fn mean(right: usize, documents: usize) -> (f64, Option<f64>) {
    let (right, count) = (right as f64, documents as f64);
    let mean = right / count;
    let stderr = (documents > 1).then(|| (mean * (1.0 - mean) / (count - 1.0)).sqrt());
    (mean, stderr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_contexts_are_cut_from_the_left() {
        assert_eq!(cut(vec![1, 2, 3, 4, 5], 3, 10), (vec![1, 2, 3, 4], vec![4, 5]));
        assert_eq!(cut(vec![1, 2, 3, 4, 5], 3, 3), (vec![2, 3, 4], vec![4, 5]));
        assert_eq!(cut(vec![1, 2, 3, 4, 5], 1, 2), (vec![3, 4], vec![4, 5]));
    }

    #[test]
    fn an_empty_choice_is_never_likeliest_and_ties_go_to_the_first() {
        assert_eq!(likeliest([-3.0, -1.0, -1.0].into_iter()), Some(1));
        assert_eq!(likeliest([normalised(-0.0, 0), normalised(-9.0, 2)].into_iter()), Some(1));
    }

    #[test]
    fn the_standard_error_is_that_of_the_mean_of_a_sample() {
        let (acc, stderr) = mean(3, 10);
        // statistics.stdev([1] * 3 + [0] * 7) / math.sqrt(10)
        assert!((acc - 0.3).abs() < 1e-12 && (stderr.unwrap() - 0.152_752_523_165_194_64).abs() < 1e-12);
        assert_eq!(mean(1, 1), (1.0, None));
    }
}
