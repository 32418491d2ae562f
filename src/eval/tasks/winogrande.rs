//! `WinoGrande`: which option in the gap makes what follows it likelier?

use serde::Deserialize;

use super::Question;

#[derive(Deserialize)]
pub(super) struct Record {
    sentence: String,
    option1: String,
    option2: String,
    answer: String,
}

impl super::Record for Record {
    fn question(self) -> Result<Question, String> {
        let (before, after) = self.sentence.split_once('_').ok_or("has a sentence without a gap ('_')")?;
        let gold = match self.answer.as_str() {
            "1" => 0,
            "2" => 1,
            other => return Err(format!("has the answer '{other}': it must be 1 or 2")),
        };
        let choices = [self.option1, self.option2].map(|option| format!("{before}{option}"));
        Ok(Question {
            lengths: choices.iter().map(|choice| choice.chars().count()).collect(),
            pairs: choices.into_iter().map(|choice| (choice, after.trim().to_owned())).collect(),
            gold: Some(gold),
        })
    }
}
