//! `CoQA` as lm-evaluation-harness 0.4.9 has it (tasks/coqa): the story, the conversation so far, and its last question.

use indexmap::IndexMap;
use serde::Deserialize;

use super::{
    Asked,
    form::{Cut, Form, Metric},
    metrics,
};
use crate::eval::choices::is_space;

/// lm-eval's default where a task does not say how long an answer may be.
const MAX_NEW_TOKENS: usize = 256;

pub(super) fn form() -> Form {
    Form {
        max_new_tokens: MAX_NEW_TOKENS,
        until: vec!["\nQ:".to_owned()],
        ends_at_newline: false,
        first_line: false,
        cut: Cut::Left,
        metric: Metric::Coqa,
    }
}

/// A record of `EleutherAI/coqa`.
#[derive(Deserialize)]
pub(super) struct Record {
    story: String,
    questions: Turns,
    answers: Turns,
    /// Other people's, by who gave them.
    #[serde(default)]
    additional_answers: Option<IndexMap<String, Option<Turns>>>,
}

#[derive(Deserialize)]
struct Turns {
    input_text: Vec<String>,
}

impl Record {
    pub(super) fn asked(self) -> Result<Asked, String> {
        let (questions, answers) = (&self.questions.input_text, &self.answers.input_text);
        let (Some(last), true) = (answers.last(), questions.len() == answers.len()) else {
            return Err(format!("has {} questions and {} answers", questions.len(), answers.len()));
        };
        let mut prompt = format!("{}\n\n", self.story);
        for (index, (question, answer)) in questions.iter().zip(answers).enumerate() {
            prompt.extend(["Q: ", question.as_str(), "\n\nA:"]);
            if index + 1 < answers.len() {
                prompt.extend([" ", answer.as_str(), "\n\n"]);
            }
        }
        let mut references = vec![last.clone()];
        let others = self.additional_answers.iter().flatten();
        for (person, turns) in others.filter_map(|(person, turns)| Some((person, turns.as_ref()?))) {
            let other = turns.input_text.get(answers.len() - 1);
            let other = other.ok_or_else(|| format!("has no last answer among additional_answers.{person}"))?;
            if references.iter().all(|known| known.to_lowercase() != other.to_lowercase()) {
                references.push(other.clone());
            }
        }
        Ok(Asked { prompt, references, classes: Vec::new() })
    }
}

/// Exact match and F1 of the answer's first line. Each person's answer is left out in turn, and the best score among the
/// others taken, so that people's own scores compare; the mean of these counts.
pub(super) fn scores(references: &[String], answer: &str) -> [f64; 2] {
    let answer = answer.trim_matches(is_space);
    let answer = answer.split('\n').next().unwrap_or_default();
    let of = |reference: &String| [metrics::exact(answer, reference), metrics::f1_or_both_empty(answer, reference)];
    let all: Vec<[f64; 2]> = references.iter().map(of).collect();
    let best = |left_out: usize| {
        let others = all.iter().enumerate().filter(|(index, _)| all.len() == 1 || *index != left_out);
        others.fold([0.0_f64; 2], |best, (_, scores)| [best[0].max(scores[0]), best[1].max(scores[1])])
    };
    let sum = (0..all.len()).map(best).fold([0.0_f64; 2], |sum, best| [sum[0] + best[0], sum[1] + best[1]]);
    sum.map(|sum| sum / all.len().max(1) as f64)
}
