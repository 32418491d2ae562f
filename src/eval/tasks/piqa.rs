//! Physical interaction QA.

use serde::Deserialize;

use super::{Label, Question};

#[derive(Deserialize)]
pub(super) struct Record {
    goal: String,
    sol1: String,
    sol2: String,
    label: Label,
}

impl super::Record for Record {
    fn question(self) -> Result<Question, String> {
        let context = format!("Question: {}\nAnswer:", self.goal);
        Ok(Question::of_choices(&context, vec![self.sol1, self.sol2], self.label.index()?))
    }
}
