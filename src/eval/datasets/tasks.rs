//! Records of task data sets: a local file first, else the parquet files the hub makes of every data set.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
};

use parquet::{
    file::reader::{FileReader as _, SerializedFileReader},
    record::Field,
};
use serde_json::{Map, Value};

use super::records::{LONGEST, explain};
use crate::{
    checkpoint::{Error, HubSettings, fetch_dataset_file, find_below},
    job::TaskName,
};

/// The hub's own conversion, which has the same layout for every data set.
const REVISION: &str = "refs/convert/parquet";

/// Takes a record, or says what is wrong with it.
pub(in crate::eval) type Take<'a> = &'a mut dyn FnMut(Value) -> Result<(), String>;

/// Repository and configuration on the hub.
const fn source(task: TaskName) -> (&'static str, &'static str) {
    match task {
        TaskName::Openbookqa => ("allenai/openbookqa", "main"),
        TaskName::ArcEasy => ("allenai/ai2_arc", "ARC-Easy"),
        TaskName::ArcChallenge => ("allenai/ai2_arc", "ARC-Challenge"),
        TaskName::Winogrande => ("allenai/winogrande", "winogrande_xl"),
        TaskName::Hellaswag => ("Rowan/hellaswag", "default"),
        TaskName::Piqa => ("baber/piqa", "default"),
        TaskName::Mathqa => ("allenai/math_qa", "default"),
        TaskName::Boolq => ("aps/super_glue", "boolq"),
    }
}

/// Hands every record of a split to `take`, in order. Returns whether the file was a local one.
///
/// # Errors
/// [`Error::DatasetNotFound`] says what to put where, [`Error::InvalidDataset`] which record is wrong.
pub(in crate::eval) fn load_records(
    task: TaskName,
    split: &str,
    datasets_dir: &Path,
    hub: &HubSettings,
    take: Take<'_>,
) -> Result<bool, Error> {
    if load_local_records(task, split, datasets_dir, take)? {
        return Ok(true);
    }
    let place = datasets_dir.join(format!("{task}/{split}.jsonl"));
    let hint = format!("the {split} split of {task} was not found: put its records at {}", place.display());
    let (repository, configuration) = source(task);
    let file = format!("{configuration}/{split}/0000.parquet");
    let path =
        fetch_dataset_file(repository, REVISION, &file, hub, &mut |_, _, _| true).map_err(|error| match error {
            Error::DatasetNotFound(why) => Error::DatasetNotFound(format!("{hint} ({why})")),
            Error::HubUnavailable(why) => Error::HubUnavailable(format!("{hint} ({why})")),
            other => other,
        })?;
    read_parquet(&path, take).map_err(|what| Error::InvalidDataset(format!("{repository}/{file}: {what}")))?;
    Ok(false)
}

/// As [`load_records`], of a file `<task>/<split>.jsonl` or `.json`; false when there is none.
pub(in crate::eval) fn load_local_records(
    task: TaskName,
    split: &str,
    datasets_dir: &Path,
    take: Take<'_>,
) -> Result<bool, Error> {
    for (extension, read) in [("jsonl", read_lines as fn(&Path, Take<'_>) -> _), ("json", read_array)] {
        let found = find_below(datasets_dir, &format!("{task}/{split}.{extension}")).map_err(|error| match error {
            Error::NotFound(text) => Error::DatasetNotFound(text),
            other => other,
        })?;
        if let Some(path) = found.filter(|path| path.is_file()) {
            read(&path, take).map_err(|what| Error::InvalidDataset(format!("{}: {what}", path.display())))?;
            return Ok(true);
        }
    }
    Ok(false)
}

fn open(path: &Path) -> Result<impl std::io::BufRead, String> {
    let file = File::open(path).map_err(|error| explain(&error))?;
    // A file that is longer ends in the middle of a record, which is then the error.
    Ok(BufReader::new(file.take(LONGEST)))
}

fn read_lines(path: &Path, take: Take<'_>) -> Result<(), String> {
    for (index, line) in open(path)?.lines().enumerate() {
        let number = index + 1;
        let line = line.map_err(|error| format!("line {number} {}", explain(&error)))?;
        if line.trim().is_empty() {
            continue;
        }
        let record = serde_json::from_str(&line).map_err(|error| format!("line {number} is not JSON: {error}"))?;
        take(record).map_err(|what| format!("line {number} {what}"))?;
    }
    Ok(())
}

fn read_array(path: &Path, take: Take<'_>) -> Result<(), String> {
    let records: Vec<Value> =
        serde_json::from_reader(open(path)?).map_err(|error| format!("is not a JSON array: {error}"))?;
    for (index, record) in records.into_iter().enumerate() {
        take(record).map_err(|what| format!("record {index} (from 0) {what}"))?;
    }
    Ok(())
}

fn read_parquet(path: &Path, take: Take<'_>) -> Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let reader = SerializedFileReader::new(file).map_err(|error| format!("is not a parquet file: {error}"))?;
    for (index, row) in reader.get_row_iter(None).map_err(|error| error.to_string())?.enumerate() {
        let row = row.map_err(|error| format!("row {index} (from 0): {error}"))?;
        let record: Map<String, Value> =
            row.get_column_iter().map(|(name, field)| (name.clone(), to_json(field))).collect();
        take(Value::Object(record)).map_err(|what| format!("row {index} (from 0) {what}"))?;
    }
    Ok(())
}

/// The kinds of field that task data sets have; others become null.
fn to_json(field: &Field) -> Value {
    match field {
        Field::Bool(value) => Value::from(*value),
        Field::Byte(value) => Value::from(*value),
        Field::Short(value) => Value::from(*value),
        Field::Int(value) => Value::from(*value),
        Field::Long(value) => Value::from(*value),
        Field::Double(value) => Value::from(*value),
        Field::Str(value) => Value::from(value.as_str()),
        Field::ListInternal(list) => list.elements().iter().map(to_json).collect(),
        Field::Group(row) => {
            Value::Object(row.get_column_iter().map(|(name, field)| (name.clone(), to_json(field))).collect())
        }
        _ => Value::Null,
    }
}
