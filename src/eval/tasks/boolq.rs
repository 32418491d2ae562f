//! `BoolQ`. `SuperGLUE`'s copy has a `label`, the original an `answer`.

use serde::Deserialize;

use super::{Label, Question};

#[derive(Deserialize)]
pub(super) struct Record {
    passage: String,
    question: String,
    label: Option<Label>,
    answer: Option<bool>,
}

impl super::Record for Record {
    fn question(self) -> Result<Question, String> {
        let context = format!("{}\nQuestion: {}?\nAnswer:", self.passage, self.question);
        let gold = match (self.label, self.answer) {
            (Some(label), _) => label.index()?,
            (None, Some(answer)) => usize::from(answer),
            (None, None) => return Err("has neither 'label' nor 'answer'".to_owned()),
        };
        Ok(Question::of_choices(&context, vec!["no".to_owned(), "yes".to_owned()], gold))
    }
}
