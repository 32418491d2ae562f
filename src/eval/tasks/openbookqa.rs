//! `OpenBookQA`.

use serde::Deserialize;

use super::{LabelledChoices, Question};

#[derive(Deserialize)]
#[expect(non_snake_case, reason = "the data set's own names")]
pub(super) struct Record {
    question_stem: String,
    choices: LabelledChoices,
    answerKey: String,
}

impl super::Record for Record {
    fn question(self) -> Result<Question, String> {
        self.choices.question(&self.question_stem, self.answerKey.trim_start())
    }
}
