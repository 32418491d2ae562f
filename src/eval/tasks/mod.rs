//! Multiple-choice tasks. Prompts, choices, splits and metrics are those of the task files of lm-evaluation-harness
//! 0.4.9; a file per family has the records of its data set under their own names.

mod arc;
mod boolq;
mod hellaswag;
mod mathqa;
mod openbookqa;
mod piqa;
mod winogrande;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::job::TaskName;

/// What stands between a prompt and its answer.
pub(super) const DELIMITER: &str = " ";

/// A document of a task: which continuation is likeliest?
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// Each choice's context and continuation; the delimiter comes between them.
    pub(super) pairs: Vec<(String, String)>,
    /// Each choice's length in characters.
    pub(super) lengths: Vec<usize>,
    /// The right choice; none where the data name one that is not there, which counts as wrong.
    pub(super) gold: Option<usize>,
}

impl Question {
    /// One context, several continuations.
    fn of_choices(context: &str, choices: Vec<String>, gold: usize) -> Self {
        let lengths = choices.iter().map(|choice| choice.chars().count()).collect();
        let gold = Some(gold).filter(|&gold| gold < choices.len());
        Self { pairs: choices.into_iter().map(|choice| (context.to_owned(), choice)).collect(), lengths, gold }
    }

    /// The question with its answer, as an example for others.
    pub(super) fn example(&self) -> Option<String> {
        let (context, continuation) = self.pairs.get(self.gold?)?;
        Some(format!("{context}{DELIMITER}{continuation}"))
    }
}

/// A record of a data set that asks something.
trait Record: DeserializeOwned {
    /// The question, or what is wrong with the record.
    fn question(self) -> Result<Question, String>;
}

/// The choices of the AI2 data sets.
#[derive(Deserialize)]
struct LabelledChoices {
    text: Vec<String>,
    label: Vec<String>,
}

impl LabelledChoices {
    fn question(self, context: &str, answer: &str) -> Result<Question, String> {
        let gold = self.label.iter().position(|label| label == answer);
        let gold = gold.ok_or_else(|| format!("has the answer key '{answer}', which is none of its labels"))?;
        Ok(Question::of_choices(context, self.text, gold))
    }
}

/// A label that some copies of a data set write as a number and some as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Label {
    Number(usize),
    Text(String),
}

impl Label {
    fn index(&self) -> Result<usize, String> {
        match self {
            Self::Number(index) => Ok(*index),
            Self::Text(text) => text.trim().parse().map_err(|_| format!("has the label '{text}', which is no number")),
        }
    }
}

/// The split that the task is scored on.
pub(super) const fn split(task: TaskName) -> &'static str {
    if has_test_split(task) { "test" } else { "validation" }
}

/// Whether the data set's test split has labels. It also decides how many few-shot examples are drawn.
pub(super) const fn has_test_split(task: TaskName) -> bool {
    matches!(task, TaskName::Openbookqa | TaskName::ArcEasy | TaskName::ArcChallenge | TaskName::Mathqa)
}

/// Whether the accuracy by log-likelihood per character is reported too.
pub(super) const fn has_normalised_accuracy(task: TaskName) -> bool {
    !matches!(task, TaskName::Winogrande | TaskName::Boolq)
}

/// A record as the task's question, or what is wrong with it.
pub(super) fn question(task: TaskName, record: Value) -> Result<Question, String> {
    match task {
        TaskName::Openbookqa => read::<openbookqa::Record>(record),
        TaskName::ArcEasy | TaskName::ArcChallenge => read::<arc::Record>(record),
        TaskName::Winogrande => read::<winogrande::Record>(record),
        TaskName::Hellaswag => read::<hellaswag::Record>(record),
        TaskName::Piqa => read::<piqa::Record>(record),
        TaskName::Mathqa => read::<mathqa::Record>(record),
        TaskName::Boolq => read::<boolq::Record>(record),
    }
}

fn read<R: Record>(record: Value) -> Result<Question, String> {
    let record: R = serde_json::from_value(record).map_err(|error| format!("is no record of the task: {error}"))?;
    let question = record.question()?;
    if question.pairs.is_empty() {
        return Err("has no choices".to_owned());
    }
    Ok(question)
}

#[cfg(test)]
mod tests;
