//! Records of task data sets: a local file first, else a parquet file on the hub.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
};

use parquet::{
    file::reader::{FileReader as _, SerializedFileReader},
    record::Field,
};
use serde_json::{Map, Value};

use super::records::{LONGEST, explain};
use crate::{
    checkpoint::{Error, HubSettings, fetch_dataset_file, find_below},
    job::{GenerationTask, RollingTask, TaskName},
};

/// The hub's own conversion of data sets whose repositories hold a script: a branch, as the hub makes it.
const CONVERTED: &str = "refs/convert/parquet";

/// Takes a record, or says what is wrong with it.
pub(in crate::eval) type Take<'a> = &'a mut dyn FnMut(Value) -> Result<(), String>;

/// Where the records of a task are.
#[derive(Clone, Copy, Debug)]
pub(in crate::eval) struct Source {
    /// Of the local folder.
    name: &'static str,
    hub: Hub,
}

#[derive(Clone, Copy, Debug)]
enum Hub {
    /// A file that is fetched.
    File(HubFile),
    /// Something that is not read, in words.
    Elsewhere(&'static str),
}

/// A file of a revision on the hub.
#[derive(Clone, Copy, Debug)]
struct HubFile {
    repository: &'static str,
    /// A commit, so that scores stay comparable whatever becomes of the repository.
    revision: &'static str,
    /// `{split}` stands for the split.
    file: &'static str,
}

const ARC: &str = "210d026faf9955653af8916fad021475a3f00453";

impl From<TaskName> for Source {
    fn from(task: TaskName) -> Self {
        let (repository, revision, file) = match task {
            TaskName::Openbookqa => (
                "allenai/openbookqa",
                "388097ea7776314e93a529163e0fea805b8a6454",
                "main/{split}-00000-of-00001.parquet",
            ),
            TaskName::ArcEasy => ("allenai/ai2_arc", ARC, "ARC-Easy/{split}-00000-of-00001.parquet"),
            TaskName::ArcChallenge => ("allenai/ai2_arc", ARC, "ARC-Challenge/{split}-00000-of-00001.parquet"),
            TaskName::Winogrande => (
                "allenai/winogrande",
                "01e74176c63542e6b0bcb004dcdea22d94fb67b5",
                "winogrande_xl/{split}-00000-of-00001.parquet",
            ),
            TaskName::Hellaswag => {
                ("Rowan/hellaswag", "218ec52e09a7e7462a5400043bb9a69a41d06b76", "data/{split}-00000-of-00001.parquet")
            }
            // A commit of the hub's conversion.
            TaskName::Piqa => {
                ("ybisk/piqa", "078a131412f46a38025a762322c174a8bae2610c", "plain_text/piqa-{split}.parquet")
            }
            TaskName::Mathqa => ("allenai/math_qa", CONVERTED, "default/{split}/0000.parquet"),
            TaskName::Boolq => {
                ("aps/super_glue", "3de24cf8022e94f4ee4b9d55a6f539891524d646", "boolq/{split}-00000-of-00001.parquet")
            }
        };
        Self { name: task.as_str(), hub: Hub::File(HubFile { repository, revision, file }) }
    }
}

impl From<RollingTask> for Source {
    fn from(task: RollingTask) -> Self {
        let (repository, revision, file) = match task {
            RollingTask::Wikitext => (
                "EleutherAI/wikitext_document_level",
                "647234772b9554e208af6c826f23b99e3cac88c8",
                "wikitext-2-raw-v1/wikitext-2-raw-v1-{split}.parquet",
            ),
        };
        Self { name: task.as_str(), hub: Hub::File(HubFile { repository, revision, file }) }
    }
}

impl From<GenerationTask> for Source {
    fn from(task: GenerationTask) -> Self {
        if task.longbench().is_some() {
            return Self { name: "longbench", hub: Hub::Elsewhere("it is in data.zip of THUDM/LongBench on the hub") };
        }
        let (repository, revision) = ("EleutherAI/coqa", "82e11af842af6c1396f5e9a5c7de260107c50cf1");
        let file = HubFile { repository, revision, file: "coqa_{split}.parquet" };
        Self { name: task.as_str(), hub: Hub::File(file) }
    }
}

/// Hands every record of a split to `take`, in order. Returns whether the file was a local one.
///
/// # Errors
/// [`Error::DatasetNotFound`] says what to put where, [`Error::InvalidDataset`] which record is wrong.
pub(in crate::eval) fn load_records(
    source: Source,
    split: &str,
    datasets_dir: &Path,
    hub: &HubSettings,
    take: Take<'_>,
) -> Result<bool, Error> {
    if load_local_records(source, split, datasets_dir, take)? {
        return Ok(true);
    }
    let place = datasets_dir.join(format!("{}/{split}.jsonl", source.name));
    let hint = format!("the {split} split of {} was not found: put its records at {}", source.name, place.display());
    let HubFile { repository, revision, file } = match source.hub {
        Hub::File(file) => file,
        Hub::Elsewhere(place) => return Err(Error::DatasetNotFound(format!("{hint} ({place})"))),
    };
    let file = file.replace("{split}", split);
    let path =
        fetch_dataset_file(repository, revision, &file, hub, &mut |_, _, _| true).map_err(|error| match error {
            Error::DatasetNotFound(why) => Error::DatasetNotFound(format!("{hint} ({why})")),
            Error::HubUnavailable(why) => Error::HubUnavailable(format!("{hint} ({why})")),
            other => other,
        })?;
    read_parquet(&path, take).map_err(|what| Error::InvalidDataset(format!("{repository}/{file}: {what}")))?;
    Ok(false)
}

/// As [`load_records`], of a file `<task>/<split>.jsonl` or `.json`; false when there is none.
pub(in crate::eval) fn load_local_records(
    source: Source,
    split: &str,
    datasets_dir: &Path,
    take: Take<'_>,
) -> Result<bool, Error> {
    let Some((path, read)) = local_file(source, split, datasets_dir)? else { return Ok(false) };
    read(&path, take).map_err(|what| Error::InvalidDataset(format!("{}: {what}", path.display())))?;
    Ok(true)
}

/// Whether there is such a file.
pub(in crate::eval) fn has_local_records(source: Source, split: &str, datasets_dir: &Path) -> Result<bool, Error> {
    local_file(source, split, datasets_dir).map(|found| found.is_some())
}

type Reader = fn(&Path, Take<'_>) -> Result<(), String>;

fn local_file(source: Source, split: &str, datasets_dir: &Path) -> Result<Option<(PathBuf, Reader)>, Error> {
    for (extension, read) in [("jsonl", read_lines as Reader), ("json", read_array)] {
        let found =
            find_below(datasets_dir, &format!("{}/{split}.{extension}", source.name)).map_err(|error| match error {
                Error::NotFound(text) => Error::DatasetNotFound(text),
                other => other,
            })?;
        if let Some(path) = found.filter(|path| path.is_file()) {
            return Ok(Some((path, read)));
        }
    }
    Ok(None)
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
