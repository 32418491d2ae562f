//! Which of a repository's files a model needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

use super::cache::is_plain;
use crate::checkpoint::{CARD, COMPANIONS, Error};

pub(super) const CONFIG: &str = "config.json";
pub(super) const INDEX: &str = "model.safetensors.index.json";
pub(super) const SINGLE: &str = "model.safetensors";
/// The largest file other than weights that is taken, in bytes; real ones stay below 40 MB.
const LARGEST_COMPANION: u64 = 256 << 20;
/// At most so many files that are of no use are named in an error.
const MOST_NAMED: usize = 5;

/// A file as the hub describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: String,
    /// Bytes.
    pub(super) size: u64,
    /// Name of its content in the cache: SHA-256 of a large file, git's own hash of a small one.
    pub(super) hash: String,
}

impl Entry {
    /// The SHA-256 of the content, where the hub tells it.
    pub(super) fn sha256(&self) -> Option<&str> {
        (self.hash.len() == 64).then_some(self.hash.as_str())
    }
}

/// Files by name.
pub(super) type Listing = BTreeMap<String, Entry>;

/// What a model needs of its repository.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The index that names the shards, where there is one.
    pub(super) index: Option<Entry>,
    /// Configuration, tokenizer and the single weights file, but no shards.
    pub(super) files: Vec<Entry>,
}

/// Chooses the files of a model.
pub(super) fn wanted_files(repository: &str, listed: &Listing) -> Result<Wanted, Error> {
    let Some(config) = listed.get(CONFIG) else {
        return Err(Error::Unsupported(format!("{repository} has no {CONFIG}: it is not a transformers model")));
    };
    let index = listed.get(INDEX).cloned();
    let single = listed.get(SINGLE).filter(|_| index.is_none());
    if index.is_none() && single.is_none() {
        let found = other_formats(listed);
        return Err(Error::Unsupported(format!(
            "{repository} has no {SINGLE} and no {INDEX} (found {found}): graspd reads safetensors only, so convert it first"
        )));
    }
    let companions = COMPANIONS.into_iter().chain([CARD]).filter_map(|name| listed.get(name));
    let mut files: Vec<Entry> = [config].into_iter().chain(companions).cloned().collect();
    if let Some(entry) = files.iter().chain(&index).find(|entry| entry.size > LARGEST_COMPANION) {
        return Err(Error::invalid(&entry.path, format!("is {} bytes long, more than any real one", entry.size)));
    }
    files.extend(single.cloned());
    Ok(Wanted { index, files })
}

fn other_formats(listed: &Listing) -> String {
    let weights = |name: &&String| {
        let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
        matches!(
            extension,
            Some("bin" | "gguf" | "pt" | "pth" | "ckpt" | "h5" | "msgpack" | "onnx" | "npz" | "safetensors")
        )
    };
    let names: Vec<String> =
        listed.keys().filter(weights).take(MOST_NAMED).map(|name| name.escape_debug().to_string()).collect();
    if names.is_empty() { "no weights".to_owned() } else { names.join(", ") }
}

/// The shards an index names, each once.
pub(super) fn shard_names(index: &Path) -> Result<BTreeSet<String>, Error> {
    let bytes = fs::read(index).map_err(Error::io(index))?;
    let json: Value =
        serde_json::from_slice(&bytes).map_err(|error| Error::invalid(INDEX, format!("is not JSON: {error}")))?;
    let map = json.get("weight_map").and_then(Value::as_object).filter(|map| !map.is_empty());
    let map = map.ok_or_else(|| Error::invalid(INDEX, "has no object weight_map of tensor names to files"))?;
    let plain = |file: &Value| match file.as_str().filter(|file| is_plain(file) && file.ends_with(".safetensors")) {
        Some(file) => Ok(file.to_owned()),
        None => Err(Error::invalid(INDEX, format!("weight_map names {file}, which is not a plain .safetensors file"))),
    };
    map.values().map(plain).collect()
}

/// The shards an index names, as the hub describes them.
pub(super) fn shards(index: &Path, listed: &Listing) -> Result<Vec<Entry>, Error> {
    let find = |name: &String| {
        let absent = || Error::invalid(INDEX, format!("weight_map names {name}, which the repository does not have"));
        listed.get(name).cloned().ok_or_else(absent)
    };
    shard_names(index)?.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(names: &[&str]) -> Listing {
        let entry =
            |name: &&str| ((*name).to_owned(), Entry { path: (*name).to_owned(), size: 1, hash: "0".repeat(64) });
        names.iter().map(entry).collect()
    }

    #[test]
    fn only_model_files_are_wanted() {
        let names =
            ["README.md", "config.json", "modeling.py", "model.safetensors", "pytorch_model.bin", "tokenizer.json"];
        let wanted = wanted_files("a/b", &listing(&names)).unwrap();
        let paths: Vec<_> = wanted.files.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["config.json", "tokenizer.json", "README.md", "model.safetensors"]);
    }

    #[test]
    fn repositories_without_safetensors_are_refused_by_name() {
        let complaint = wanted_files("a/b", &listing(&["config.json", "model.gguf"])).unwrap_err().to_string();
        assert!(complaint.contains("a/b") && complaint.contains("model.gguf"), "{complaint}");
    }

    #[test]
    fn an_index_cannot_lead_out_of_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join(INDEX);
        for evil in ["../x.safetensors", "/etc/x.safetensors", "x/y.safetensors", "", "x.bin"] {
            fs::write(&index, serde_json::json!({"weight_map": {"t": evil}}).to_string()).unwrap();
            assert!(shard_names(&index).is_err(), "{evil}");
        }
        fs::write(&index, r#"{"weight_map": {"t": "b.safetensors", "u": "a.safetensors", "v": "b.safetensors"}}"#)
            .unwrap();
        assert_eq!(shards(&index, &listing(&["a.safetensors", "b.safetensors"])).unwrap().len(), 2);
        assert!(shards(&index, &listing(&["a.safetensors"])).unwrap_err().to_string().contains("b.safetensors"));
    }
}
