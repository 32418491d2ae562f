//! Snapshots of hub repositories, in the cache that other tools share.
//!
//! Only configuration, tokenizer and safetensors files are fetched, never code. Whatever the server names (commit,
//! files, shards) is checked before it becomes part of a path.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use hf_hub::{HFClient, HFClientSync, HFError};
use serde_json::Value;

use super::{Error, Snapshot};

/// How to reach the hub.
#[derive(Clone)]
pub struct HubSettings {
    /// `https://huggingface.co`, or a mirror.
    pub endpoint: String,
    /// The hub's cache folder, shared with other tools.
    pub cache_dir: PathBuf,
    /// Access token for private and gated repositories.
    pub token: Option<String>,
    /// Never touch the network; use what the cache holds.
    pub offline: bool,
    /// Pause before the first retry of a request; it doubles with each.
    pub retry_delay: Duration,
}

impl fmt::Debug for HubSettings {
    // By hand, because the token must never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSettings")
            .field("endpoint", &self.endpoint)
            .field("cache_dir", &self.cache_dir)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .field("retry_delay", &self.retry_delay)
            .finish()
    }
}

/// Told (files done, files, file at work) before each file; `false` ends the download.
pub type ObserveFiles<'a> = &'a mut dyn FnMut(u64, u64, &str) -> bool;

const CONFIG: &str = "config.json";
const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
/// Files beside the weights that a checkpoint may need.
const COMPANIONS: [&str; 10] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
];
/// Whole downloads that are tried before the job fails; each goes on where the one before broke off.
const TRIES: usize = 3;

/// Brings a model repository into the cache.
///
/// # Errors
/// [`Error::NotFound`] for a repository or revision that does not exist or may not be read (and what to do),
/// [`Error::Unsupported`] for one without safetensors, [`Error::HubUnavailable`] when the hub does not answer.
pub fn fetch_model(
    repository: &str,
    revision: Option<&str>,
    settings: &HubSettings,
    observe: ObserveFiles<'_>,
) -> Result<Snapshot, Error> {
    let wanted = revision.unwrap_or("main");
    let hub = Hub::new(repository, settings)?;
    if settings.offline {
        return hub.cached_model(wanted);
    }
    let (commit, names) = hub.listing(wanted)?;
    let mut files = wanted_files(repository, &names)?;
    let mut folder = None;
    let mut done = 0;
    while done < files.len() {
        let file = files[done].clone();
        if !observe(done as u64, files.len() as u64, &file) {
            return Err(Error::Cancelled);
        }
        let path = hub.model_file(&commit, &file)?;
        if file == INDEX {
            files.extend(shards(&path, &files)?);
        }
        if file == CONFIG {
            folder = path.parent().map(Path::to_owned);
        }
        done += 1;
    }
    let folder = folder.ok_or_else(|| Error::invalid(CONFIG, "lies nowhere"))?;
    Ok(Snapshot { folder, revision: Some(commit) })
}

/// Brings one file of a data set repository into the cache; offline, finds it there.
///
/// # Errors
/// As [`fetch_model`], with [`Error::DatasetNotFound`] for what does not exist.
pub fn fetch_dataset_file(
    repository: &str,
    revision: &str,
    file: &str,
    settings: &HubSettings,
) -> Result<PathBuf, Error> {
    let hub = Hub::new(repository, settings)?;
    let repo = hub.client.dataset(hub.owner, hub.name);
    hub.again(|| repo.download_file().filename(file).revision(revision).local_files_only(settings.offline).send())
        .map_err(|error| match error {
            Error::NotFound(text) => Error::DatasetNotFound(text),
            other => other,
        })
}

/// The files to fetch of those a repository lists, the configuration first.
fn wanted_files(repository: &str, names: &BTreeSet<String>) -> Result<Vec<String>, Error> {
    if !names.contains(CONFIG) {
        return Err(Error::Unsupported(format!("{repository} has no config.json: it is no transformers model")));
    }
    let weights = match (names.contains(INDEX), names.contains(SINGLE)) {
        (true, _) => INDEX,
        (false, true) => SINGLE,
        (false, false) => {
            let others: Vec<&str> = names.iter().map(String::as_str).filter(|name| is_other_format(name)).collect();
            let found = if others.is_empty() { "no weights".to_owned() } else { others.join(", ") };
            return Err(Error::Unsupported(format!(
                "{repository} has no safetensors weights (found {found}): graspd reads safetensors only"
            )));
        }
    };
    let companions = COMPANIONS.into_iter().filter(|name| names.contains(*name));
    Ok([CONFIG].into_iter().chain(companions).chain([weights]).map(str::to_owned).collect())
}

fn is_other_format(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("bin" | "gguf" | "pt" | "pth" | "h5" | "msgpack" | "onnx" | "safetensors"))
}

/// The shards an index names that are not yet on the list.
fn shards(index: &Path, listed: &[String]) -> Result<Vec<String>, Error> {
    let text = std::fs::read(index).map_err(Error::io(index))?;
    let json: Value =
        serde_json::from_slice(&text).map_err(|error| Error::invalid(INDEX, format!("is not JSON: {error}")))?;
    let map =
        json.get("weight_map").and_then(Value::as_object).ok_or_else(|| Error::invalid(INDEX, "has no weight_map"))?;
    let mut files = BTreeSet::new();
    for file in map.values() {
        match file.as_str().filter(|file| is_plain(file) && file.ends_with(".safetensors")) {
            Some(file) => files.insert(file.to_owned()),
            None => return Err(Error::invalid(INDEX, format!("weight_map names {file}, which is no plain file name"))),
        };
    }
    Ok(files.into_iter().filter(|file| !listed.contains(file)).collect())
}

/// A name that stays in its folder.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

fn is_commit(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

struct Hub<'a> {
    client: HFClientSync,
    repository: &'a str,
    owner: &'a str,
    name: &'a str,
    settings: &'a HubSettings,
}

impl<'a> Hub<'a> {
    fn new(repository: &'a str, settings: &'a HubSettings) -> Result<Self, Error> {
        let (owner, name) =
            repository.split_once('/').ok_or_else(|| Error::NotFound(format!("{repository} is no repository name")))?;
        let builder = HFClient::builder()
            .endpoint(&settings.endpoint)
            .cache_dir(&settings.cache_dir)
            .retry_base_delay(settings.retry_delay);
        let builder = match &settings.token {
            Some(token) => builder.token(token),
            None => builder,
        };
        let client = builder
            .build_sync()
            .map_err(|error| Error::HubUnavailable(format!("the hub client cannot start: {error}")))?;
        Ok(Self { client, repository, owner, name, settings })
    }

    /// The commit of a revision and the files at its top level.
    fn listing(&self, revision: &str) -> Result<(String, BTreeSet<String>), Error> {
        let info = self.again(|| self.client.model(self.owner, self.name).info().revision(revision).send())?;
        let commit = info.sha.filter(|commit| is_commit(commit));
        let commit = commit.ok_or_else(|| {
            Error::HubUnavailable(format!("the hub gave no commit for {}@{revision}", self.repository))
        })?;
        let names =
            info.siblings.unwrap_or_default().into_iter().map(|file| file.rfilename).filter(|name| is_plain(name));
        Ok((commit, names.collect()))
    }

    fn model_file(&self, commit: &str, file: &str) -> Result<PathBuf, Error> {
        self.again(|| self.client.model(self.owner, self.name).download_file().filename(file).revision(commit).send())
    }

    /// What the cache holds of a revision.
    fn cached_model(&self, revision: &str) -> Result<Snapshot, Error> {
        let cached = self
            .client
            .model(self.owner, self.name)
            .download_file()
            .filename(CONFIG)
            .revision(revision)
            .local_files_only(true)
            .send();
        let path = cached.map_err(|_| {
            Error::NotFound(format!(
                "{}@{revision} is not in the cache {} and the hub is switched off (HF_HUB_OFFLINE)",
                self.repository,
                self.settings.cache_dir.display()
            ))
        })?;
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let commit =
            folder.file_name().and_then(|name| name.to_str()).filter(|name| is_commit(name)).map(str::to_owned);
        Ok(Snapshot { folder, revision: commit })
    }

    /// Tries a request again when the transfer broke off; hf-hub itself retries single answers of 429 and 5xx.
    fn again<T>(&self, mut request: impl FnMut() -> Result<T, HFError>) -> Result<T, Error> {
        let mut delay = self.settings.retry_delay;
        for _ in 1..TRIES {
            match request() {
                Err(error) if is_transient(&error) => std::thread::sleep(delay),
                result => return result.map_err(|error| self.explain(error)),
            }
            delay *= 2;
        }
        request().map_err(|error| self.explain(error))
    }

    fn explain(&self, error: HFError) -> Error {
        let Self { repository, settings, .. } = self;
        let endpoint = &settings.endpoint;
        match error {
            HFError::AuthRequired { .. } => Error::NotFound(format!(
                "{repository} does not exist on {endpoint} or is private: check the name, and give the server a token that may read it (HF_TOKEN)"
            )),
            HFError::Forbidden { .. } => Error::NotFound(format!(
                "{repository} is gated: accept its conditions at {endpoint}/{repository} and give the server that account's token (HF_TOKEN)"
            )),
            HFError::RepoNotFound { .. } => {
                Error::NotFound(format!("there is no repository {repository} on {endpoint} that this server may read"))
            }
            HFError::RevisionNotFound { revision, .. } => {
                Error::NotFound(format!("{repository} has no revision '{revision}'"))
            }
            HFError::EntryNotFound { path, .. } => Error::NotFound(format!("{repository} has no file {path}")),
            HFError::LocalEntryNotFound { path } => Error::NotFound(format!(
                "{path} of {repository} is not in the cache {} and the hub is switched off (HF_HUB_OFFLINE)",
                settings.cache_dir.display()
            )),
            HFError::Io(source) => Error::Io { path: settings.cache_dir.clone(), source },
            other => Error::HubUnavailable(format!("{endpoint} did not deliver {repository}: {other}")),
        }
    }
}

fn is_transient(error: &HFError) -> bool {
    match error {
        HFError::Request { .. }
        | HFError::RateLimited { .. }
        | HFError::MalformedResponse { .. }
        | HFError::Xet { .. } => true,
        HFError::Http { context } => context.status.is_server_error(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_model_files_are_wanted() {
        let files = wanted_files(
            "a/b",
            &names(&[
                "README.md",
                "config.json",
                "modeling.py",
                "model.safetensors",
                "pytorch_model.bin",
                "tokenizer.json",
            ]),
        );
        assert_eq!(files.unwrap(), ["config.json", "tokenizer.json", "model.safetensors"]);
    }

    #[test]
    fn repositories_without_safetensors_are_refused_by_name() {
        let complaint = wanted_files("a/b", &names(&["config.json", "model.gguf"])).unwrap_err().to_string();
        assert!(complaint.contains("a/b") && complaint.contains("model.gguf"), "{complaint}");
    }

    #[test]
    fn an_index_cannot_lead_out_of_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join(INDEX);
        for evil in ["../x.safetensors", "/etc/x.safetensors", "x/y.safetensors", "", "x.bin"] {
            std::fs::write(&index, serde_json::json!({"weight_map": {"t": evil}}).to_string()).unwrap();
            assert!(shards(&index, &[]).is_err(), "{evil}");
        }
        std::fs::write(&index, r#"{"weight_map": {"t": "b.safetensors", "u": "a.safetensors", "v": "b.safetensors"}}"#)
            .unwrap();
        assert_eq!(shards(&index, &["a.safetensors".to_owned()]).unwrap(), ["b.safetensors"]);
    }

    #[test]
    fn a_token_is_never_shown() {
        let settings = HubSettings {
            endpoint: "e".into(),
            cache_dir: "c".into(),
            token: Some("hf_secret".into()),
            offline: true,
            retry_delay: Duration::ZERO,
        };
        assert!(!format!("{settings:?}").contains("secret"));
    }
}
