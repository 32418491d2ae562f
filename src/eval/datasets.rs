//! Texts by name: a local file first, else the hub.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    checkpoint::{Error, HubSettings, find_below},
    eval::remote,
    job::DatasetName,
};

/// The largest text file that is read, in bytes.
const LARGEST: u64 = 2 << 30;
const EXTENSIONS: [&str; 3] = ["txt", "jsonl", "json"];
/// Field names under which the field's data sets keep their text.
const TEXT_FIELDS: [&str; 2] = ["text", "sentence"];
/// What stands between two records.
pub(super) const SEPARATOR: &str = "\n\n";

/// The text of a data set's split: `<dir>/<name>/<split>.{txt,jsonl,json}`, for `file:NAME` also `<dir>/NAME` and
/// `<dir>/NAME.{txt,jsonl,json}` (which have no splits), else the hub. Records are joined with an empty line.
///
/// # Errors
/// [`Error::DatasetNotFound`] says what was looked for and what to put where; [`Error::InvalidDataset`] what is wrong
/// with a file.
pub fn load_text(name: &DatasetName, split: &str, dir: &Path, hub: &HubSettings) -> Result<String, Error> {
    match find_local(name, split, dir)? {
        Some(path) => read(&path),
        None => remote::load(name, split, hub).map_err(|error| explain(error, name, split, dir)),
    }
}

/// The split that models are scored on: test, or validation where there is none; with its name.
///
/// # Errors
/// As [`load_text`].
pub fn load_evaluation_text(name: &DatasetName, dir: &Path, hub: &HubSettings) -> Result<(String, String), Error> {
    for split in ["test", "validation"] {
        if let Some(path) = find_local(name, split, dir)? {
            return Ok((read(&path)?, split.to_owned()));
        }
    }
    // On the hub, C4 has no test split.
    let split = if *name == DatasetName::C4 { "validation" } else { "test" };
    Ok((load_text(name, split, dir, hub)?, split.to_owned()))
}

fn find_local(name: &DatasetName, split: &str, dir: &Path) -> Result<Option<PathBuf>, Error> {
    for candidate in candidates(name, split) {
        if let Some(path) = find_below(dir, &candidate)?.filter(|path| path.is_file()) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Paths below the data sets folder, in the order they are tried.
fn candidates(name: &DatasetName, split: &str) -> Vec<String> {
    let base = match name {
        DatasetName::Local { name } => name.clone(),
        known => known.to_string(),
    };
    let mut paths: Vec<String> = EXTENSIONS.iter().map(|extension| format!("{base}/{split}.{extension}")).collect();
    if matches!(name, DatasetName::Local { .. }) {
        paths.extend(EXTENSIONS.iter().map(|extension| format!("{base}.{extension}")));
        if EXTENSIONS.iter().any(|extension| base.ends_with(&format!(".{extension}"))) {
            paths.push(base);
        }
    }
    paths
}

fn explain(error: Error, name: &DatasetName, split: &str, dir: &Path) -> Error {
    let tried: Vec<String> = candidates(name, split).iter().map(|path| dir.join(path).display().to_string()).collect();
    let message = format!("the {split} split of {name} was not found; put it at one of {} ({error})", tried.join(", "));
    match error {
        Error::HubUnavailable(_) => Error::HubUnavailable(message),
        Error::DatasetNotFound(_) | Error::NotFound(_) => Error::DatasetNotFound(message),
        other => other,
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let wrong = |what: String| Error::InvalidDataset(format!("{}: {what}", path.display()));
    let length = fs::metadata(path).map_err(Error::io(path))?.len();
    if length > LARGEST {
        return Err(wrong(format!("is {length} bytes long; at most {LARGEST} are read")));
    }
    let bytes = fs::read(path).map_err(Error::io(path))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8 text".to_owned()))?;
    let text = match path.extension().and_then(|extension| extension.to_str()) {
        Some("jsonl") => join_lines(&text).map_err(wrong)?,
        Some("json") => join_array(&text).map_err(wrong)?,
        _ => text,
    };
    if text.trim().is_empty() {
        return Err(wrong("holds no text".to_owned()));
    }
    Ok(text)
}

/// One JSON object a line.
pub(super) fn join_lines(text: &str) -> Result<String, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let records = lines.map(|(index, line)| {
        let record: Value =
            serde_json::from_str(line).map_err(|error| format!("line {} is not JSON: {error}", index + 1))?;
        text_of(&record).ok_or_else(|| format!("line {} has no text in a field \"text\"", index + 1))
    });
    Ok(records.collect::<Result<Vec<_>, String>>()?.join(SEPARATOR))
}

fn join_array(text: &str) -> Result<String, String> {
    let records: Vec<Value> =
        serde_json::from_str(text).map_err(|error| format!("is not a JSON array of objects: {error}"))?;
    let texts = records.iter().enumerate().map(|(index, record)| {
        text_of(record).ok_or_else(|| format!("record {index} has no text in a field \"text\""))
    });
    Ok(texts.collect::<Result<Vec<_>, String>>()?.join(SEPARATOR))
}

fn text_of(record: &Value) -> Option<String> {
    let fields = TEXT_FIELDS.iter().find_map(|field| record.get(field)?.as_str());
    fields.or_else(|| record.as_str()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub() -> HubSettings {
        HubSettings {
            endpoint: "http://127.0.0.1:9".into(),
            cache_dir: "/nonexistent".into(),
            token: None,
            offline: true,
            retry_delay: std::time::Duration::ZERO,
        }
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn load(dir: &tempfile::TempDir, name: &str, split: &str) -> Result<String, String> {
        load_text(&name.parse().unwrap(), split, dir.path(), &hub()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_layout_is_found() {
        let dir = folder(&[
            ("wikitext2/train.txt", " a \n b "),
            ("c4/train.jsonl", "{\"text\": \"x\"}\n\n{\"text\": \"y\"}\n"),
            ("ptb/test.json", "[{\"sentence\": \"x\"}, {\"sentence\": \"y\"}]"),
            ("mine.txt", "mine"),
            ("deep/own/validation.txt", "own"),
        ]);
        assert_eq!(load(&dir, "wikitext2", "train").unwrap(), " a \n b ");
        assert_eq!(load(&dir, "c4", "train").unwrap(), "x\n\ny");
        assert_eq!(load(&dir, "file:mine", "train").unwrap(), "mine");
        assert_eq!(load(&dir, "file:mine.txt", "train").unwrap(), "mine");
        assert_eq!(
            load_evaluation_text(&"ptb".parse().unwrap(), dir.path(), &hub()).unwrap(),
            ("x\n\ny".into(), "test".into())
        );
        assert_eq!(
            load_evaluation_text(&"file:deep/own".parse().unwrap(), dir.path(), &hub()).unwrap().1,
            "validation"
        );
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let dir = folder(&[("a.txt", " \n"), ("b.jsonl", "{\"text\": \"x\"}\n{\"title\": \"y\"}"), ("c.json", "{}")]);
        for (name, words) in [
            ("file:a", "holds no text"),
            ("file:b", "line 2 has no text"),
            ("file:c", "not a JSON array"),
            ("file:d", "d/train.txt"),
            ("wikitext2", "wikitext2/train.txt"),
        ] {
            let complaint = load(&dir, name, "train").unwrap_err();
            assert!(complaint.contains(words), "{name}: {complaint}");
        }
    }
}
