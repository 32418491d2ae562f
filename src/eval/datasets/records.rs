//! Files of text records.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use serde::Deserialize;

use crate::checkpoint::Error;

/// The longest text that is read, in bytes.
pub(super) const LONGEST: u64 = 2 << 30;
/// What stands between two records.
pub(super) const SEPARATOR: &str = "\n\n";

/// How a file holds its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// It is the text.
    Text,
    /// An object a line.
    JsonLines,
    /// An array of objects.
    Json,
}

/// A record under the two names that text data sets use; other fields are of no interest.
#[derive(Deserialize)]
struct Record {
    text: Option<serde_json::Value>,
    /// The Penn Treebank's name for it.
    sentence: Option<serde_json::Value>,
}

impl Record {
    fn into_text(self) -> Result<String, &'static str> {
        match self.text.or(self.sentence) {
            Some(serde_json::Value::String(text)) => Ok(text),
            Some(_) => Err("has a field \"text\" that is not a string"),
            None => Err("has no field \"text\""),
        }
    }
}

/// Records of one text, joined.
#[derive(Default)]
pub(super) struct Joined {
    text: String,
    records: usize,
}

impl Joined {
    pub(super) fn push(&mut self, record: &str) -> Result<(), String> {
        if self.records > 0 {
            self.text.push_str(SEPARATOR);
        }
        self.records += 1;
        if (self.text.len() + record.len()) as u64 > LONGEST {
            return Err(format!("holds more than {LONGEST} bytes of text"));
        }
        self.text.push_str(record);
        Ok(())
    }

    /// The whole, which must hold something.
    pub(super) fn finish(self) -> Result<String, String> {
        if self.text.trim().is_empty() {
            return Err("holds no text".to_owned());
        }
        Ok(self.text)
    }
}

/// Reads a file of the user's.
pub(super) fn read(path: &Path, format: Format) -> Result<String, Error> {
    let invalid = |what: String| Error::InvalidDataset(format!("{}: {what}", path.display()));
    let file = File::open(path).map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    if length > LONGEST {
        return Err(invalid(format!("is {length} bytes long; at most {LONGEST} are read")));
    }
    // The file may grow meanwhile; what is read may not.
    let reader = BufReader::new(file.take(LONGEST));
    let text = match format {
        Format::Text => read_text(reader),
        Format::JsonLines => join_lines(reader, usize::MAX),
        Format::Json => join_array(reader),
    };
    text.map_err(invalid)
}

fn read_text(mut reader: impl Read) -> Result<String, String> {
    let mut text = String::new();
    reader.read_to_string(&mut text).map_err(|error| explain(&error))?;
    let mut joined = Joined::default();
    // Moved, not copied: the text may be large.
    std::mem::swap(&mut joined.text, &mut text);
    joined.finish()
}

/// Joins the first `most` records of one JSON object a line; empty lines are none.
pub(super) fn join_lines(reader: impl BufRead, most: usize) -> Result<String, String> {
    let mut joined = Joined::default();
    for (index, line) in reader.lines().enumerate() {
        let number = index + 1;
        let line = line.map_err(|error| format!("line {number} {}", explain(&error)))?;
        if joined.records == most {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        let record: Record =
            serde_json::from_str(&line).map_err(|error| format!("line {number} is not a JSON object: {error}"))?;
        joined.push(&record.into_text().map_err(|what| format!("line {number} {what}"))?)?;
    }
    joined.finish()
}

fn join_array(reader: impl Read) -> Result<String, String> {
    let records: Vec<Record> =
        serde_json::from_reader(reader).map_err(|error| format!("is not a JSON array of objects: {error}"))?;
    let mut joined = Joined::default();
    for (index, record) in records.into_iter().enumerate() {
        joined.push(&record.into_text().map_err(|what| format!("record {index} (from 0) {what}"))?)?;
    }
    joined.finish()
}

pub(super) fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::InvalidData => "is not UTF-8 text".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}
