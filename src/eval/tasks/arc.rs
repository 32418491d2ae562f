//! The AI2 reasoning challenge, both sets.

use serde::Deserialize;

use super::{LabelledChoices, Question};

#[derive(Deserialize)]
#[expect(non_snake_case, reason = "the data set's own names")]
pub(super) struct Record {
    question: String,
    choices: LabelledChoices,
    answerKey: String,
}

impl super::Record for Record {
    fn question(self) -> Result<Question, String> {
        self.choices.question(&format!("Question: {}\nAnswer:", self.question), &self.answerKey)
    }
}
