//! Tasks whose answers the model writes, greedily: a prompt for each document, how an answer ends, and a metric.

mod coqa;
mod form;
mod longbench;
mod metrics;

use std::{path::Path, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::form::Cut;
pub use self::form::Form;
use super::{
    Asking, Documents, Encoder, Generation, Item,
    datasets::{Source, load_records},
    documents::Writer,
};
use crate::{
    checkpoint::{Error, HubSettings},
    job::{GenerationScores, GenerationTask},
    model::Decoder,
};

/// What a record asks, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    prompt: String,
    references: Vec<String>,
    classes: Vec<String>,
}

/// What a record asks, as tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// At least one.
    tokens: Vec<u32>,
    /// Tokens of the longest answer.
    max_new_tokens: usize,
    /// Right answers.
    references: Vec<String>,
    /// Of which an answer should name one, where the task has classes.
    classes: Vec<String>,
}

impl Item for Prompt {
    // One after the other: they share little, and an answer takes long.
    const AT_ONCE: usize = 1;

    fn longest(&self) -> usize {
        self.tokens.len() + self.max_new_tokens
    }

    fn tokens(&self) -> usize {
        self.longest()
    }
}

/// A task whose documents are prompts.
pub struct Generative {
    /// Which task.
    pub task: GenerationTask,
    /// The split it is scored on.
    pub split: &'static str,
    /// How its answers are asked for and scored.
    pub form: Form,
    /// The prompts.
    pub documents: Documents<Prompt>,
    encoder: Arc<Encoder>,
}

impl Generative {
    /// Reads a task's documents and encodes them for a model, whose context leaves room for the answers, into the file
    /// `place`.
    ///
    /// # Errors
    /// [`Error::DatasetNotFound`] says what to put where, [`Error::InvalidDataset`] what is wrong with a file; and when
    /// the tokenizer fails or the file cannot be written.
    pub fn read(
        task: GenerationTask,
        asking: Asking,
        encoder: &Arc<Encoder>,
        (datasets_dir, hub): (&Path, &HubSettings),
        place: &Path,
    ) -> Result<Self, Error> {
        let form = Form::of(task);
        // A file of LongBench's is called as its data set, and there is one.
        let (split, file) = task.longbench().map_or(("validation", "validation"), |name| ("test", name));
        let room = asking.longest.saturating_sub(form.max_new_tokens);
        let mut writer = Writer::create(place)?;
        // What went wrong: it is not the record's fault.
        let mut written = Ok(());
        let mut left = asking.limit.unwrap_or(usize::MAX);
        load_records(Source::from(task), file, datasets_dir, hub, &mut |record: Value| {
            if left > 0 && written.is_ok() {
                left -= 1;
                let asked = asked(task, record)?;
                written = form.prompt(asked, encoder, room).and_then(|prompt| writer.push(&prompt));
            }
            Ok(())
        })?;
        written?;
        let documents = writer.finish()?;
        if documents.volume.count == 0 {
            return Err(Error::InvalidDataset(format!("{task} ({split}) has no documents")));
        }
        Ok(Self { task, split, form, documents, encoder: Arc::clone(encoder) })
    }

    /// What the model writes behind a prompt, as text; nothing where its numbers are not finite.
    ///
    /// # Errors
    /// Whatever `observe`, called after each layer, returns to end early, or the device's own failure.
    pub fn answer(
        &self,
        decoder: &Decoder,
        prompt: &Prompt,
        observe: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<Option<String>, Error> {
        let newline = if self.form.ends_at_newline { self.encoder.encode("\n", false)? } else { Vec::new() };
        let ends: Vec<u32> = self.encoder.ends().iter().chain(newline.last()).copied().collect();
        let mut text = Generation::begin(decoder, &prompt.tokens, prompt.longest(), observe)?;
        if !text.is_finite()? {
            return Ok(None);
        }
        // Where a line is an answer, it is not empty.
        let barred: &[u32] = if self.form.ends_at_newline { &ends } else { &[] };
        let mut tokens = vec![text.likeliest(barred)?];
        loop {
            let answer = self.encoder.decode(&tokens)?;
            let token = tokens[tokens.len() - 1];
            if tokens.len() == prompt.max_new_tokens || ends.contains(&token) || self.form.until(&answer).is_some() {
                return Ok(Some(self.form.cut_off(answer)));
            }
            text.push(token, observe)?;
            tokens.push(text.likeliest(&[])?);
        }
    }

    /// How it is asked, in words.
    pub fn protocol(&self) -> String {
        let (of, cut) = match self.form.cut {
            Cut::Left => ("lm-evaluation-harness 0.4.9", "beginning"),
            Cut::Middle => ("LongBench (arXiv 2308.14508), prompts of base models", "middle"),
        };
        format!(
            "{of}, {} split, zero-shot, greedy, at most {} tokens; a prompt that is too long loses its {cut}",
            self.split, self.form.max_new_tokens
        )
    }

    /// Nothing marked yet.
    pub fn marking(&self) -> Marking<'_> {
        Marking { form: &self.form, scores: vec![Vec::new(); self.form.metric.names().len()] }
    }
}

/// The scores of a task's answers so far.
pub struct Marking<'a> {
    form: &'a Form,
    /// For each metric, a number for each document.
    scores: Vec<Vec<f64>>,
}

impl Marking<'_> {
    /// Scores the answer to a prompt.
    pub fn add(&mut self, prompt: &Prompt, answer: &str) {
        let found = self.form.score(prompt, answer);
        for (scores, score) in self.scores.iter_mut().zip(found) {
            scores.push(score);
        }
    }

    /// The means, and their standard errors.
    pub fn scores(&self) -> GenerationScores {
        let mut all = GenerationScores::default();
        for (name, scores) in self.form.metric.names().iter().zip(&self.scores) {
            let (mean, stderr) = mean(scores);
            all.insert(name, mean, stderr);
        }
        all
    }
}

/// The mean and its standard error, from the sample's variance; none of a single number.
fn mean(scores: &[f64]) -> (f64, Option<f64>) {
    let count = scores.len() as f64;
    let mean = scores.iter().sum::<f64>() / count;
    let squares: f64 = scores.iter().map(|score| (score - mean).powi(2)).sum();
    (mean, (scores.len() > 1).then(|| (squares / (count - 1.0) / count).sqrt()))
}

/// What a record asks, or what is wrong with it.
fn asked(task: GenerationTask, record: Value) -> Result<Asked, String> {
    match task.longbench() {
        None => read::<coqa::Record>(record)?.asked(),
        Some(name) => longbench::asked(name, read(record)?),
    }
}

fn read<R: serde::de::DeserializeOwned>(record: Value) -> Result<R, String> {
    serde_json::from_value(record).map_err(|error| format!("is no record of the task: {error}"))
}

#[cfg(test)]
mod tests;
