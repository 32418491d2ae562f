//! `LongBench`'s English data sets (arXiv 2308.14508), with the prompts, lengths and metrics of its own code: prompts are
//! those of base models, without the templates that it has for some chat models.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;

use super::{
    Asked,
    form::{Form, Metric},
    metrics,
};

/// What `longbench.json` says of a data set.
#[derive(Deserialize)]
struct Definition {
    /// `{context}` and `{input}` stand for the record's, in this order.
    prompt: String,
    #[serde(flatten)]
    form: Form,
}

#[derive(Deserialize)]
struct File {
    tasks: BTreeMap<String, Definition>,
}

#[expect(clippy::expect_used, reason = "the file is a constant of the build")]
static DEFINITIONS: LazyLock<BTreeMap<String, Definition>> = LazyLock::new(|| {
    let file: File = serde_json::from_str(include_str!("longbench.json")).expect("longbench.json has the tasks' form");
    file.tasks
});

/// A record of `LongBench`'s.
#[derive(Deserialize)]
pub(super) struct Record {
    input: String,
    context: String,
    answers: Vec<String>,
    #[serde(default)]
    all_classes: Option<Vec<String>>,
}

pub(super) fn form(name: &str) -> Form {
    DEFINITIONS[name].form.clone()
}

/// What a record of the data set `name` asks.
pub(super) fn asked(name: &str, record: Record) -> Result<Asked, String> {
    let Definition { prompt, form } = &DEFINITIONS[name];
    let Record { input, context, mut answers, all_classes } = record;
    if answers.is_empty() {
        return Err("has no answers".to_owned());
    }
    if matches!(form.metric, Metric::Retrieval) {
        let number = |answer: &String| metrics::paragraph(answer).map(str::to_owned);
        let numbers: Option<Vec<String>> = answers.iter().map(number).collect();
        answers = numbers.ok_or("has an answer that is not 'Paragraph' and a number")?;
    }
    let (before, behind) = prompt.split_once("{context}").unwrap_or((prompt, ""));
    let prompt = format!("{before}{context}{}", behind.replace("{input}", &input));
    Ok(Asked { prompt, references: answers, classes: all_classes.unwrap_or_default() })
}
