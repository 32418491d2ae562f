//! How a task's answers are asked for and scored.

use serde::Deserialize;

use super::{Asked, Prompt, coqa, longbench, metrics};
use crate::{checkpoint::Error, eval::Encoder, job::GenerationTask};

/// How a task's answers are asked for and scored.
#[derive(Clone, Debug, Deserialize)]
pub struct Form {
    /// Tokens of the longest answer.
    pub max_new_tokens: usize,
    /// Texts that end an answer, and are not part of it.
    #[serde(default)]
    pub(super) until: Vec<String>,
    /// Whether a token that ends a line ends an answer, which then is not empty.
    #[serde(default)]
    pub(super) ends_at_newline: bool,
    /// Whether only the first line that is not empty counts.
    #[serde(default)]
    pub(super) first_line: bool,
    /// What a prompt that is too long loses.
    #[serde(default)]
    pub(super) cut: Cut,
    pub(super) metric: Metric,
}

/// What a prompt that is too long loses.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cut {
    /// Its beginning, as at lm-eval.
    Left,
    /// Its middle, as at `LongBench`.
    #[default]
    Middle,
}

/// How an answer is scored.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Metric {
    /// Exact matches and F1 among several people's answers.
    Coqa,
    /// F1 of the words.
    F1,
    /// F of the longest common subsequence of the words.
    RougeL,
    /// Whether the class is named, and no other.
    Accuracy,
    /// The share of the numbers named that are the right one.
    Count,
    /// As [`Self::Count`], of the number of a paragraph.
    Retrieval,
    /// The similarity of the first line of code.
    CodeSimilarity,
}

impl Metric {
    /// Under what names it is reported.
    pub(super) const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Coqa => &["em", "f1"],
            Self::F1 => &["f1"],
            Self::RougeL => &["rouge_l"],
            Self::Accuracy => &["accuracy"],
            Self::Count => &["count"],
            Self::Retrieval => &["retrieval"],
            Self::CodeSimilarity => &["code_similarity"],
        }
    }
}

impl Form {
    /// That of a task.
    pub fn of(task: GenerationTask) -> Self {
        task.longbench().map_or_else(coqa::form, longbench::form)
    }

    /// A prompt of about `room` tokens at most, but of at least one.
    pub(super) fn prompt(&self, asked: Asked, encoder: &Encoder, room: usize) -> Result<Prompt, Error> {
        let Asked { prompt, references, classes } = asked;
        let mut tokens = match self.cut {
            Cut::Left => {
                let tokens = encoder.encode_prompt(&prompt)?;
                tokens[tokens.len().saturating_sub(room)..].to_vec()
            }
            Cut::Middle => without_middle(encoder, &prompt, room)?,
        };
        if tokens.is_empty() {
            tokens.push(encoder.first_token()?);
        }
        Ok(Prompt { tokens, max_new_tokens: self.max_new_tokens, references, classes })
    }

    /// Where the first of the texts that end an answer begins in it.
    pub(super) fn until(&self, answer: &str) -> Option<usize> {
        self.until.iter().filter_map(|end| answer.find(end.as_str())).min()
    }

    /// An answer without the text that ends it and what follows.
    pub(super) fn cut_off(&self, mut answer: String) -> String {
        answer.truncate(self.until(&answer).unwrap_or(answer.len()));
        answer
    }

    /// A number for each of the metric's names.
    pub(super) fn score(&self, prompt: &Prompt, answer: &str) -> Vec<f64> {
        let answer = if self.first_line { metrics::first_line(answer) } else { answer };
        let best = |of: &dyn Fn(&str) -> f64| {
            vec![prompt.references.iter().map(|reference| of(reference)).fold(0.0, f64::max)]
        };
        match self.metric {
            Metric::Coqa => coqa::scores(&prompt.references, answer).to_vec(),
            Metric::F1 => best(&|reference| metrics::f1(answer, reference)),
            Metric::RougeL => best(&|reference| metrics::rouge_l(answer, reference)),
            Metric::Accuracy => best(&|reference| metrics::accuracy(answer, reference, &prompt.classes)),
            Metric::Count | Metric::Retrieval => best(&|reference| metrics::share_of_numbers(answer, reference)),
            Metric::CodeSimilarity => best(&|reference| metrics::code_similarity(answer, reference)),
        }
    }
}

/// As `LongBench` cuts a prompt: as many tokens from its front as from its end, as text that is encoded again, which may
/// give a few tokens more.
fn without_middle(encoder: &Encoder, prompt: &str, room: usize) -> Result<Vec<u32>, Error> {
    let tokens = encoder.encode(prompt, true)?;
    if tokens.len() <= room {
        return Ok(tokens);
    }
    let half = room / 2;
    let (front, end) = (encoder.decode(&tokens[..half])?, encoder.decode(&tokens[tokens.len() - half..])?);
    encoder.encode(&format!("{front}{end}"), true)
}
