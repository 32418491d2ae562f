//! What models are trained on: records of instructions with answers, or text.

use std::{fs, path::Path};

use serde::Deserialize;

use super::{Found, candidates, find_local, records};
use crate::{
    checkpoint::{Error, HubSettings, fetch_dataset_file},
    job::{DatasetName, spec::TrainingData},
};

/// The cleaned variant of the Alpaca data, which the reference code trains on.
const ALPACA: (&str, &str, &str) =
    ("yahma/alpaca-cleaned", "12567cabf869d7c92e573c7c783905fc160e9639", "alpaca_data_cleaned.json");
const SPLIT: &str = "train";

/// An instruction with its answer, under the field names of Alpaca.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Instruction {
    /// What to do.
    pub instruction: String,
    /// What to do it with; often empty.
    #[serde(default)]
    pub input: String,
    /// The answer.
    pub output: String,
}

/// Training data as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrainingText {
    /// Records.
    Instructions(Vec<Instruction>),
    /// A text as a whole.
    Text(String),
}

/// Reads training data: a file of the user's (`<dir>/alpaca/train.json`, or for `file:NAME` as
/// [`super::load_text`] finds it), else from the hub. Records with an `instruction` and an `output` are instructions;
/// anything else is text.
///
/// # Errors
/// [`Error::DatasetNotFound`] says where it was looked for, [`Error::InvalidDataset`] what is wrong with it,
/// [`Error::HubUnavailable`] that the hub did not deliver.
pub fn load_training(data: &TrainingData, datasets_dir: &Path, hub: &HubSettings) -> Result<TrainingText, Error> {
    let found = match data {
        TrainingData::Alpaca => find_local(&alpaca_folder(), SPLIT, datasets_dir)?,
        TrainingData::Own(name) => find_local(name, SPLIT, datasets_dir)?,
    };
    match (data, found) {
        (_, Some(Found { path, format, .. })) => read(&path, format),
        (TrainingData::Own(name), None) => Err(Error::DatasetNotFound(hint(name, datasets_dir))),
        (TrainingData::Alpaca, None) => fetch(datasets_dir, hub),
    }
}

/// Alpaca's local place is that of a data set of the user's with this name.
fn alpaca_folder() -> DatasetName {
    DatasetName::Local { name: "alpaca".to_owned() }
}

fn hint(name: &DatasetName, datasets_dir: &Path) -> String {
    let tried: Vec<String> =
        candidates(name, SPLIT).map(|(path, ..)| datasets_dir.join(path).display().to_string()).collect();
    format!("{name} was not found: put its records or its text at one of {}", tried.join(", "))
}

fn fetch(datasets_dir: &Path, hub: &HubSettings) -> Result<TrainingText, Error> {
    let (repository, revision, file) = ALPACA;
    let hint = || {
        let place = datasets_dir.join("alpaca/train.json");
        format!("alpaca was not found: put its records at {}", place.display())
    };
    let path =
        fetch_dataset_file(repository, revision, file, hub, &mut |_, _, _| true).map_err(|error| match error {
            Error::DatasetNotFound(why) => Error::DatasetNotFound(format!("{} ({why})", hint())),
            Error::HubUnavailable(why) => Error::HubUnavailable(format!("{} ({why})", hint())),
            other => other,
        })?;
    read(&path, records::Format::Json)
}

fn read(path: &Path, format: records::Format) -> Result<TrainingText, Error> {
    if format != records::Format::Text && is_instructions(path, format)? {
        return read_instructions(path, format).map(TrainingText::Instructions);
    }
    records::read(path, format).map(TrainingText::Text)
}

/// Whether the first record is an instruction; the others must then be too.
fn is_instructions(path: &Path, format: records::Format) -> Result<bool, Error> {
    let text = read_to_string(path)?;
    let first: Option<serde_json::Value> = match format {
        records::Format::Json => serde_json::from_str::<Vec<serde_json::Value>>(&text).ok().and_then(|mut records| {
            records.truncate(1);
            records.pop()
        }),
        _ => text.lines().find(|line| !line.trim().is_empty()).and_then(|line| serde_json::from_str(line).ok()),
    };
    Ok(first.is_some_and(|record| record.get("instruction").is_some()))
}

fn read_to_string(path: &Path) -> Result<String, Error> {
    let length = fs::metadata(path).map_err(Error::io(path))?.len();
    if length > records::LONGEST {
        let what = format!("is {length} bytes long; at most {} are read", records::LONGEST);
        return Err(Error::InvalidDataset(format!("{}: {what}", path.display())));
    }
    fs::read_to_string(path).map_err(Error::io(path))
}

fn read_instructions(path: &Path, format: records::Format) -> Result<Vec<Instruction>, Error> {
    let invalid = |what: String| Error::InvalidDataset(format!("{}: {what}", path.display()));
    let text = read_to_string(path)?;
    if format == records::Format::Json {
        return serde_json::from_str(&text).map_err(|error| invalid(format!("is no array of instructions: {error}")));
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let record = |(index, line): (usize, &str)| {
        serde_json::from_str(line)
            .map_err(|error| invalid(format!("line {} is no instruction with an output: {error}", index + 1)))
    };
    lines.map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(name: &str, text: &str) -> Result<TrainingText, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("alpaca")).unwrap();
        fs::write(folder.path().join(name), text).unwrap();
        let hub = HubSettings {
            endpoint: "http://127.0.0.1:9".into(),
            cache_dir: "/nonexistent".into(),
            token: None,
            offline: true,
            retry_delay: std::time::Duration::ZERO,
        };
        let data = if name.starts_with("alpaca") { "alpaca" } else { "file:mine" };
        load_training(&data.parse().unwrap(), folder.path(), &hub).map_err(|error| error.to_string())
    }

    #[test]
    fn records_and_texts_are_told_apart() {
        let record = |input: &str| Instruction { instruction: "a".into(), input: input.into(), output: "c".into() };
        let array = r#"[{"instruction": "a", "input": "b", "output": "c"}, {"instruction": "a", "output": "c"}]"#;
        let expected = TrainingText::Instructions(vec![record("b"), record("")]);
        assert_eq!(load("alpaca/train.json", array).unwrap(), expected);
        let lines = "{\"instruction\": \"a\", \"input\": \"b\", \"output\": \"c\"}\n\n{\"instruction\": \"a\", \"output\": \"c\"}\n";
        assert_eq!(load("mine.jsonl", lines).unwrap(), expected);
        assert_eq!(load("mine.txt", "a b").unwrap(), TrainingText::Text("a b".into()));
        let texts = "{\"text\": \"x\"}\n{\"text\": \"y\"}\n";
        assert_eq!(load("mine.jsonl", texts).unwrap(), TrainingText::Text("x\n\ny".into()));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_with_its_place() {
        assert!(load("elsewhere.txt", "x").unwrap_err().contains("mine/train.txt"));
        let broken = "{\"instruction\": \"a\", \"output\": \"c\"}\n{\"instruction\": \"a\"}\n";
        assert!(load("mine.jsonl", broken).unwrap_err().contains("line 2"));
        assert!(load("mine.json", r#"[{"instruction": 1}]"#).unwrap_err().contains("array of instructions"));
        assert!(load("alpaca/other.json", "[]").unwrap_err().contains("alpaca/train.json"));
    }
}
