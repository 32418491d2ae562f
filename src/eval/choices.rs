//! Multiple choice: the log-likelihood of every choice, and what it says about the model.

use std::path::Path;

use rayon::prelude::*;
use serde_json::Value;

use super::{
    Document, Documents, Encoder,
    datasets::{has_local_records, load_records},
    documents::{Sequence, Writer},
    few_shot::{FewShot, fingerprint},
    tasks::{self, DELIMITER, Question},
};
use crate::{
    checkpoint::{Error, HubSettings},
    job::{TaskName, TaskScores},
    model::{Decoder, Packed},
};

/// Questions that are encoded together.
const QUESTIONS_AT_ONCE: usize = 256;

/// A task whose documents are tokens.
pub struct Exam {
    /// Which task.
    pub task: TaskName,
    /// The split it is scored on.
    pub split: &'static str,
    /// Examples before each question, and the split they come from.
    pub few_shot: Option<(usize, &'static str)>,
    /// The documents.
    pub documents: Documents<Document>,
}

/// Answers of a task so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    documents: usize,
    right: usize,
    right_normalised: usize,
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
    /// Reads a task's documents and encodes them for a model, into the file `place`.
    ///
    /// # Errors
    /// As [`load_records`], and when the tokenizer fails or the file cannot be written.
    pub fn read(
        task: TaskName,
        asking: Asking,
        encoder: &Encoder,
        (datasets_dir, hub): (&Path, &HubSettings),
        place: &Path,
    ) -> Result<Self, Error> {
        let split = tasks::split(task);
        let mut examples = None;
        if asking.num_fewshot > 0 {
            let is_local = has_local_records(task.into(), split, datasets_dir)?;
            examples = Some(FewShot::prepare(task, asking.num_fewshot, is_local, datasets_dir, hub)?);
        }
        let few_shot = examples.as_ref().map(|examples| (asking.num_fewshot, examples.split));
        let encode = Encode { encoder, longest: asking.longest };
        let mut booklet = Booklet { encode, questions: Vec::new(), writer: Writer::create(place)?, failed: None };
        let mut seen = 0;
        load_records(task.into(), split, datasets_dir, hub, &mut |record: Value| {
            if asking.limit.is_none_or(|limit| seen < limit) {
                seen += 1;
                let before = examples.as_mut().map(|examples| examples.next(fingerprint(&record)));
                let mut question = tasks::question(task, record)?;
                question.put_before(&before.unwrap_or_default());
                booklet.push(question);
            }
            Ok(())
        })?;
        if seen == 0 {
            return Err(Error::InvalidDataset(format!("{task} ({split}) has no documents")));
        }
        Ok(Self { task, split, few_shot, documents: booklet.finish()? })
    }
}

impl Tally {
    /// Counts a document by the log-likelihoods of its choices, as lm-eval does.
    pub fn add(&mut self, document: &Document, log_likelihoods: &[f64]) {
        let per_character = log_likelihoods.iter().zip(&document.lengths);
        let per_character = per_character.map(|(score, &length)| normalised(*score, length));
        self.documents += 1;
        self.right += usize::from(document.gold == likeliest(log_likelihoods.iter().copied()));
        self.right_normalised += usize::from(document.gold == likeliest(per_character));
    }

    /// The accuracies of a task.
    pub fn scores(&self, task: TaskName) -> TaskScores {
        let (acc, acc_stderr) = mean(self.right, self.documents);
        let (mut acc_norm, mut acc_norm_stderr) = (None, None);
        if tasks::has_normalised_accuracy(task) {
            let (mean, stderr) = mean(self.right_normalised, self.documents);
            (acc_norm, acc_norm_stderr) = (Some(mean), stderr);
        }
        TaskScores { acc, acc_stderr, acc_norm, acc_norm_stderr }
    }
}

/// Documents on their way into their file, some questions at a time.
struct Booklet<'a> {
    encode: Encode<'a>,
    questions: Vec<Question>,
    writer: Writer<Document>,
    /// What went wrong: it is not the record's fault.
    failed: Option<Error>,
}

impl Booklet<'_> {
    fn push(&mut self, question: Question) {
        self.questions.push(question);
        if self.questions.len() == QUESTIONS_AT_ONCE {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let questions = std::mem::take(&mut self.questions);
        if self.failed.is_some() {
            return;
        }
        let encoded: Result<Vec<Document>, Error> =
            questions.into_par_iter().map(|question| self.encode.document(question)).collect();
        let written =
            encoded.and_then(|documents| documents.iter().try_for_each(|document| self.writer.push(document)));
        self.failed = written.err();
    }

    fn finish(mut self) -> Result<Documents<Document>, Error> {
        self.flush();
        match self.failed {
            Some(failed) => Err(failed),
            None => self.writer.finish(),
        }
    }
}

/// How questions become tokens.
#[derive(Clone, Copy)]
struct Encode<'a> {
    encoder: &'a Encoder,
    longest: usize,
}

impl Question {
    fn put_before(&mut self, examples: &str) {
        for (context, _) in &mut self.pairs {
            context.insert_str(0, examples);
        }
    }
}

impl Encode<'_> {
    fn document(self, question: Question) -> Result<Document, Error> {
        let Question { pairs, lengths, gold } = question;
        let mut sequences = Vec::with_capacity(pairs.len());
        let mut last: Option<(&str, usize)> = None;
        for (context, continuation) in &pairs {
            // Choices have their context in common as a rule.
            let known = last.filter(|(text, _)| text == context).map(|(_, length)| length);
            let (tokens, length) = encode_pair(self.encoder, context, &format!("{DELIMITER}{continuation}"), known)?;
            last = Some((context, length));
            sequences.push(cut(tokens, length, self.longest));
        }
        Ok(Document { sequences, lengths, gold })
    }
}

/// The tokens of both parts, and how many belong to the context. White space at its end goes to the continuation, and
/// the two are encoded as one text, so that a token that spans the boundary is scored with the continuation. `known` is how
/// many tokens the context has, where that is known.
fn encode_pair(
    encoder: &Encoder,
    context: &str,
    continuation: &str,
    known: Option<usize>,
) -> Result<(Vec<u32>, usize), Error> {
    let stripped = context.trim_end_matches(is_space);
    if context.is_empty() {
        let (first, tokens) = (encoder.first_token()?, encoder.encode(continuation, false)?);
        let begins = tokens.first() == Some(&first);
        return Ok((if begins { tokens } else { [&[first], tokens.as_slice()].concat() }, 1));
    }
    let whole = encoder.encode_prompt(&format!("{context}{continuation}"))?;
    let length = known.map_or_else(|| Ok(encoder.encode_prompt(stripped)?.len()), Ok::<_, Error>)?;
    Ok((whole, length))
}

/// Python's white space: four control characters more than Unicode's.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The last `longest` tokens that the model may read of a sequence and the one behind them; those of the continuation are
/// scored.
fn cut(mut tokens: Vec<u32>, context: usize, longest: usize) -> Sequence {
    // A sequence begins with something that is not scored, as the first token has nothing before it.
    let start = context.clamp(1, tokens.len().max(1));
    let excess = tokens.len().saturating_sub(longest + 1);
    tokens.drain(..excess);
    let start = start.saturating_sub(excess).max(1).min(tokens.len());
    Sequence { scored: tokens.len() - start, tokens }
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
    let sequences: Vec<&Sequence> = documents.iter().flat_map(|document| &document.sequences).collect();
    let packed = Packed::new(&sequences.iter().map(|sequence| sequence.read()).collect::<Vec<_>>());
    let (mut rows, mut targets) = (Vec::new(), Vec::new());
    for (index, sequence) in sequences.iter().enumerate() {
        let unscored = sequence.read().len().saturating_sub(sequence.scored);
        rows.extend(packed.rows(index).skip(unscored).map(|row| row as u32));
        targets.extend_from_slice(sequence.targets());
    }
    if packed.is_empty() {
        return Ok(documents.iter().map(|document| vec![0.0; document.sequences.len()]).collect());
    }
    let hidden = decoder.forward_packed(&packed, observe)?;
    let mut scores = decoder.head.log_probabilities(&hidden, &rows, &targets)?.into_iter();
    let mut of_sequence = |sequence: &Sequence| scores.by_ref().take(sequence.scored).sum();
    Ok(documents.iter().map(|document| document.sequences.iter().map(&mut of_sequence).collect()).collect())
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
        let parts = |context, longest| {
            let cut = cut(vec![1, 2, 3, 4, 5], context, longest);
            (cut.read().to_vec(), cut.targets().to_vec())
        };
        assert_eq!(parts(3, 10), (vec![1, 2, 3, 4], vec![4, 5]));
        assert_eq!(parts(3, 3), (vec![2, 3, 4], vec![4, 5]));
        assert_eq!(parts(1, 2), (vec![3, 4], vec![4, 5]));
        assert_eq!(parts(5, 10), (vec![], vec![]), "an empty choice has nothing to be read for");
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
