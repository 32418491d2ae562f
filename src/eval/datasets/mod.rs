//! Texts by name: a file of the user's first, else the hub.

mod hub;
mod pages;
mod records;
mod tasks;
mod training;

use std::path::{Path, PathBuf};

pub(super) use pages::load_pages;
use records::Format;
pub(super) use tasks::{Source, has_local_records, load_local_records, load_records};
pub use training::{Instruction, TrainingText, load_training};

use crate::{
    checkpoint::{Error, HubSettings, find_below},
    job::{DatasetName, UPLOADS},
};

/// Extensions of text files, in the order they are tried.
const EXTENSIONS: [(&str, Format); 3] = [("txt", Format::Text), ("jsonl", Format::JsonLines), ("json", Format::Json)];
/// What a text without splits calls its only one.
const WHOLE: &str = "all";

/// A text file below the data sets folder.
struct Found {
    path: PathBuf,
    format: Format,
    /// Whether the file is one split among others, or all there is.
    is_split: bool,
}

/// The text of a data set's split.
///
/// Looked for first as `<dir>/<name>/<split>.{txt,jsonl,json}`; for `file:NAME` then as `<dir>/NAME.{txt,jsonl,json}`
/// and `<dir>/NAME` (which have no splits); data sets known by name are fetched from the hub after that. A `.txt` is
/// the text as it is. Records of the other formats (`{"text": "…"}`) are joined with an empty line between them.
///
/// # Errors
/// [`Error::DatasetNotFound`] says what was looked for and what to put where, [`Error::InvalidDataset`] what is wrong
/// with a file, [`Error::HubUnavailable`] that the hub did not deliver.
pub fn load_text(name: &DatasetName, split: &str, datasets_dir: &Path, hub: &HubSettings) -> Result<String, Error> {
    match find_local(name, split, datasets_dir)? {
        Some(found) => records::read(&found.path, found.format),
        None => fetch(name, split, datasets_dir, hub),
    }
}

/// The text that models are scored on, and its split: `test`, or `validation` where there is none; `all` for a file
/// without splits. Local files come before the hub.
///
/// # Errors
/// As [`load_text`].
pub fn load_evaluation_text(
    name: &DatasetName,
    datasets_dir: &Path,
    hub: &HubSettings,
) -> Result<(String, String), Error> {
    for split in ["test", "validation"] {
        if let Some(found) = find_local(name, split, datasets_dir)? {
            let split = if found.is_split { split } else { WHOLE };
            return Ok((records::read(&found.path, found.format)?, split.to_owned()));
        }
    }
    let split = hub::evaluation_split(name);
    Ok((fetch(name, split, datasets_dir, hub)?, split.to_owned()))
}

fn fetch(name: &DatasetName, split: &str, datasets_dir: &Path, hub: &HubSettings) -> Result<String, Error> {
    let tried: Vec<String> =
        candidates(name, split).map(|(path, ..)| datasets_dir.join(path).display().to_string()).collect();
    let hint = format!("the {split} split of {name} was not found: put its text at one of {}", tried.join(", "));
    let Some(source) = hub::source(name, split) else {
        return Err(Error::DatasetNotFound(hint));
    };
    source.load(hub).map_err(|error| match error {
        Error::DatasetNotFound(why) => Error::DatasetNotFound(format!("{hint} ({why})")),
        Error::HubUnavailable(why) => Error::HubUnavailable(format!("{hint} ({why})")),
        other => other,
    })
}

fn find_local(name: &DatasetName, split: &str, datasets_dir: &Path) -> Result<Option<Found>, Error> {
    for (candidate, format, is_split) in candidates(name, split) {
        let found = find_below(datasets_dir, &candidate).map_err(|error| match error {
            Error::NotFound(text) => Error::DatasetNotFound(text),
            other => other,
        })?;
        if let Some(path) = found.filter(|path| path.is_file()) {
            return Ok(Some(Found { path, format, is_split }));
        }
    }
    Ok(None)
}

/// Paths below the data sets folder in the order they are tried, and whether they hold one split.
fn candidates(name: &DatasetName, split: &str) -> impl Iterator<Item = (String, Format, bool)> {
    let (base, own) = match name {
        DatasetName::Local { name } => (name.clone(), true),
        DatasetName::Uploaded(id) => (format!("{UPLOADS}/{id}"), true),
        known => (known.to_string(), false),
    };
    let splits = EXTENSIONS.map(|(extension, format)| (format!("{base}/{split}.{extension}"), format, true));
    let wholes = EXTENSIONS.map(|(extension, format)| (format!("{base}.{extension}"), format, false));
    let extension = base.rsplit_once('.').map(|(_, extension)| extension.to_owned());
    let itself = EXTENSIONS
        .into_iter()
        .find(|(known, _)| extension.as_deref() == Some(known))
        .map(|(_, format)| (base, format, false));
    splits.into_iter().chain(wholes.into_iter().chain(itself).filter(move |_| own))
}

#[cfg(test)]
mod tests;
