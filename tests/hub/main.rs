//! Downloads against a hub that misbehaves.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, helpers included")]

mod fake;
mod outline;
mod shards;
mod storage;
mod upload;

use std::{fs, io::Write as _, path::Path, process::Command, time::Duration};

use fake::{COMMIT, FakeHub, Fault};
use graspd::{
    checkpoint::{Error, HubSettings, Snapshot, fetch_dataset_file, fetch_model},
    eval::load_evaluation_text,
    job::FailureCode,
};
use serde_json::json;
use tempfile::TempDir;

/// How often a request is made at most; see `TRIES` of the transfer.
const TRIES: usize = 5;

struct Client {
    settings: HubSettings,
    cache: TempDir,
}

fn settings(hub: &FakeHub, cache: &Path) -> HubSettings {
    HubSettings {
        endpoint: hub.endpoint.clone(),
        cache_dir: cache.to_owned(),
        token: None,
        offline: false,
        retry_delay: Duration::from_millis(1),
    }
}

impl Client {
    fn of(hub: &FakeHub) -> Self {
        let cache = tempfile::tempdir().unwrap();
        Self { settings: settings(hub, cache.path()), cache }
    }

    fn fetch(&self) -> Result<Snapshot, Error> {
        fetch_model("org/name", None, &self.settings, &mut |_, _, _| true)
    }

    fn complaint(&self) -> String {
        self.fetch().unwrap_err().to_string()
    }

    fn offline(&mut self) {
        self.settings.offline = true;
    }

    /// Nothing of the model can be mistaken for a whole file.
    fn shows_no_weights(&self) -> bool {
        let snapshot = self.cache.path().join("models--org--name/snapshots").join(COMMIT);
        !snapshot.join("model.safetensors").exists() && !self.cache.path().join("models--org--name/refs/main").exists()
    }
}

/// Weights longer than a transfer's buffers.
fn weights() -> Vec<u8> {
    (0..300_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn model() -> FakeHub {
    FakeHub::start()
        .small("config.json", "{}")
        .small("README.md", "read me")
        .small("modeling_evil.py", "import os")
        .large("tokenizer.json", "{\"tokens\": 1}")
        .large("pytorch_model.bin", "pickle")
        .large("model.safetensors", weights())
}

fn sharded(weight_map: &serde_json::Value) -> FakeHub {
    FakeHub::start()
        .small("config.json", "{}")
        .small("model.safetensors.index.json", json!({"weight_map": weight_map}).to_string())
        .large("model-00001-of-00002.safetensors", "first")
        .large("model-00002-of-00002.safetensors", "second")
}

fn read(folder: &Path, file: &str) -> Vec<u8> {
    fs::read(folder.join(file)).unwrap()
}

#[test]
fn a_model_arrives_whole_and_alone() {
    let hub = model();
    let client = Client::of(&hub);
    let mut steps = Vec::new();
    let found = fetch_model("org/name", None, &client.settings, &mut |done, total, file| {
        steps.push((done, total, file.to_owned()));
        true
    });
    let found = found.unwrap();
    assert_eq!(found.revision.as_deref(), Some(COMMIT));
    assert_eq!(read(&found.folder, "model.safetensors"), weights());
    let files: Vec<String> = hub.downloads().into_iter().map(|(file, _)| file).collect();
    assert_eq!(files, ["config.json", "tokenizer.json", "README.md", "model.safetensors"]);
    assert!(steps.is_sorted_by_key(|(done, ..)| *done), "{steps:?}");
    let (done, total, file) = steps.last().unwrap();
    assert_eq!((done, file.as_str()), (total, "model.safetensors"));
    client.fetch().unwrap();
    assert_eq!(hub.downloads().len(), 4, "a second fetch downloads nothing");
}

#[test]
fn shards_are_those_of_the_index() {
    let hub = sharded(&json!({"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}));
    let client = Client::of(&hub);
    let found = client.fetch().unwrap();
    assert_eq!(read(&found.folder, "model-00002-of-00002.safetensors"), b"second");
}

#[test]
fn a_complete_cache_is_enough_offline() {
    let hub = sharded(&json!({"a": "model-00001-of-00002.safetensors"}));
    let mut client = Client::of(&hub);
    let online = client.fetch().unwrap();
    client.offline();
    client.settings.endpoint = "http://127.0.0.1:1".into();
    assert_eq!(client.fetch().unwrap(), online);
    let pinned = fetch_model("org/name", Some(COMMIT), &client.settings, &mut |_, _, _| true).unwrap();
    assert_eq!(pinned, online);
    fs::remove_file(online.folder.join("model-00001-of-00002.safetensors")).unwrap();
    let complaint = client.complaint();
    assert!(complaint.contains("model-00001-of-00002") && complaint.contains("HF_HUB_OFFLINE"), "{complaint}");
}

#[test]
fn offline_with_an_empty_cache_says_what_to_do() {
    let hub = model();
    let mut client = Client::of(&hub);
    client.offline();
    let complaint = client.complaint();
    assert!(complaint.contains("HF_HUB_OFFLINE") && complaint.contains("hub switched on"), "{complaint}");
    let missing = fetch_dataset_file("org/name", "main", "a.txt", &client.settings, &mut |_, _, _| true).unwrap_err();
    assert!(matches!(missing, Error::DatasetNotFound(_)), "{missing:?}");
    assert_eq!(hub.downloads().len(), 0);
}

#[test]
fn a_transfer_that_is_cut_goes_on_where_it_broke_off() {
    let hub = model().fault("model.safetensors", 2, Fault::Cut(400_000));
    let client = Client::of(&hub);
    let found = client.fetch().unwrap();
    assert_eq!(read(&found.folder, "model.safetensors"), weights());
    let ranges: Vec<bool> = hub
        .downloads()
        .into_iter()
        .filter(|(file, _)| file == "model.safetensors")
        .map(|(_, range)| range.is_some())
        .collect();
    assert_eq!(ranges, [false, true, true]);
}

#[test]
fn a_small_file_that_is_cut_starts_anew() {
    let hub = model().fault("config.json", 1, Fault::Cut(1));
    let client = Client::of(&hub);
    assert_eq!(read(&client.fetch().unwrap().folder, "config.json"), b"{}");
}

#[test]
fn passing_trouble_is_waited_for() {
    for status in [408, 429, 500, 502, 503, 504] {
        for path in ["/revision/", "/tree/", "model.safetensors"] {
            let later = Some(("retry-after", "0".to_owned()));
            let hub = model().fault(path, TRIES - 1, Fault::Status(status, later));
            assert!(Client::of(&hub).fetch().is_ok(), "{status} of {path}");
        }
    }
}

#[test]
fn trouble_that_does_not_pass_ends_in_time() {
    for status in [500, 429] {
        let hub = model().fault("model.safetensors", usize::MAX, Fault::Status(status, None));
        let client = Client::of(&hub);
        let error = client.fetch().unwrap_err();
        assert_eq!(error.failure().code, FailureCode::HubUnavailable, "{error}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        assert_eq!(hub.downloads().iter().filter(|(file, _)| file == "model.safetensors").count(), TRIES);
        assert!(client.shows_no_weights());
    }
}

#[test]
fn bytes_that_were_not_announced_are_never_shown() {
    let mut other = weights();
    other[7] ^= 1;
    let (mut longer, mut shorter) = (weights(), weights());
    longer.push(0);
    shorter.pop();
    for wrong in [other, longer, shorter, b"<html>busy</html>".to_vec()] {
        let hub = model().fault("model.safetensors", 1, Fault::Content(wrong.clone()));
        assert_eq!(read(&Client::of(&hub).fetch().unwrap().folder, "model.safetensors"), weights(), "once");
        let hub = model().fault("model.safetensors", usize::MAX, Fault::Content(wrong));
        let client = Client::of(&hub);
        assert_eq!(client.fetch().unwrap_err().failure().code, FailureCode::HubUnavailable);
        assert!(client.shows_no_weights());
    }
}

#[test]
fn names_of_the_server_never_leave_the_cache() {
    let evil = ["../x.safetensors", "/etc/x.safetensors", "a/../../x.safetensors", "..", "missing.safetensors"];
    for name in evil {
        let hub = sharded(&json!({"a": name}));
        let error = Client::of(&hub).fetch().unwrap_err();
        assert_eq!(error.failure().code, FailureCode::InvalidModel, "{error}");
        assert!(error.to_string().contains(name), "{error}");
        assert!(hub.downloads().iter().all(|(file, _)| !file.contains("x.safetensors")));
    }
    let hub = evil.iter().fold(model(), |hub, name| hub.large(name, "evil"));
    let client = Client::of(&hub);
    let found = client.fetch().unwrap();
    assert_eq!(hub.downloads().len(), 4);
    assert_eq!(fs::read_dir(found.folder).unwrap().count(), 4);
}

#[test]
fn hashes_and_commits_of_the_server_are_checked() {
    for commit in ["../../../../tmp/x", "", "HEAD", "0123"] {
        let hub = model().fault("/revision/", usize::MAX, Fault::Json(json!({"id": "org/name", "sha": commit})));
        let client = Client::of(&hub);
        assert!(client.complaint().contains("no commit"), "{commit}");
    }
    let entry = |path: &str| json!({"type": "file", "path": path, "size": 2, "oid": "../../../../x"});
    let hub =
        model().fault("/tree/", usize::MAX, Fault::Json(json!([entry("config.json"), entry("model.safetensors")])));
    assert!(Client::of(&hub).complaint().contains("config.json"));
    assert_eq!(hub.downloads().len(), 0);
}

#[test]
fn what_may_not_be_read_says_what_to_do() {
    let gated = Some(("x-error-code", "GatedRepo".to_owned()));
    for (path, status, header, words) in [
        ("/revision/", 401, None, ["private", "HF_TOKEN"]),
        ("model.safetensors", 401, gated, ["accept its licence at", "/org/name"]),
        ("model.safetensors", 403, None, ["accept its licence at", "HF_TOKEN"]),
        ("/revision/", 404, None, ["there is no org/name", "'main'"]),
        ("model.safetensors", 404, None, ["has no file", "model.safetensors"]),
    ] {
        let hub = model().fault(path, usize::MAX, Fault::Status(status, header));
        let error = Client::of(&hub).fetch().unwrap_err();
        assert_eq!(error.failure().code, FailureCode::ModelNotFound, "{status}: {error}");
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{status}: {error}");
    }
}

#[test]
fn repositories_without_safetensors_are_refused_by_what_they_hold() {
    let hub = FakeHub::start().small("config.json", "{}").large("pytorch_model.bin", "x").large("q4.gguf", "x");
    let error = Client::of(&hub).fetch().unwrap_err();
    assert_eq!(error.failure().code, FailureCode::UnsupportedModel);
    assert!(error.to_string().contains("pytorch_model.bin, q4.gguf"), "{error}");
    let error = Client::of(&FakeHub::start().small("README.md", "x")).fetch().unwrap_err();
    assert!(error.to_string().contains("no config.json"), "{error}");
}

#[test]
fn addresses_of_large_files_are_not_told() {
    let location = Some(("location", "http://127.0.0.1:1/blob?signature=secret".to_owned()));
    let hub = model().fault("model.safetensors", usize::MAX, Fault::Status(302, location));
    let complaint = Client::of(&hub).complaint();
    assert!(!complaint.contains("secret"), "{complaint}");
}

#[test]
fn a_token_goes_with_every_request() {
    let hub = model();
    let mut client = Client::of(&hub);
    client.settings.token = Some("hf_mine".to_owned());
    client.fetch().unwrap();
    assert!(hub.tokens().iter().all(|token| token.as_deref() == Some("Bearer hf_mine")), "{:?}", hub.tokens());
}

#[test]
fn without_a_token_none_is_sent() {
    let hub = model();
    Client::of(&hub).fetch().unwrap();
    assert!(hub.tokens().iter().all(Option::is_none), "{:?}", hub.tokens());
}

#[test]
fn the_environment_is_not_read() {
    // The test above once more, where the environment says otherwise.
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("token"), "hf_file").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "without_a_token_none_is_sent"])
        .env("HF_TOKEN", "hf_environment")
        .env("HF_HOME", home.path())
        .env("HF_ENDPOINT", "http://127.0.0.1:1")
        .env("HF_HUB_CACHE", home.path().join("cache"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert!(!home.path().join("cache").exists());
}

#[test]
fn a_cancel_is_heard_while_the_hub_is_silent() {
    let hub = model().fault("model.safetensors", usize::MAX, Fault::Silence);
    let client = Client::of(&hub);
    let mut seen = 0;
    let result = fetch_model("org/name", None, &client.settings, &mut |_, _, file| {
        seen += usize::from(file == "model.safetensors");
        // The first step says that the file begins, the next come by the clock.
        seen < 2
    });
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    assert!(client.shows_no_weights());
}

#[test]
fn an_unreachable_hub_is_unavailable() {
    let hub = model();
    let mut client = Client::of(&hub);
    client.settings.endpoint = "http://127.0.0.1:1".into();
    assert_eq!(client.fetch().unwrap_err().failure().code, FailureCode::HubUnavailable);
    client.settings.endpoint = "not an address".into();
    assert_eq!(client.fetch().unwrap_err().failure().code, FailureCode::HubUnavailable);
}

#[test]
fn a_text_comes_from_the_hub_when_there_is_no_local_one() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"{\"text\": \"one\"}\n{\"text\": \"two\"}\n").unwrap();
    let hub = FakeHub::start().large("en/c4-validation.00000-of-00008.json.gz", gzip.finish().unwrap());
    let client = Client::of(&hub);
    let nothing = tempfile::tempdir().unwrap();
    let load = |settings| load_evaluation_text(&"c4".parse().unwrap(), nothing.path(), settings);
    assert_eq!(load(&client.settings).unwrap(), ("one\n\ntwo".to_owned(), "validation".to_owned()));
    let offline = HubSettings { offline: true, ..client.settings.clone() };
    assert!(load(&offline).is_ok(), "it is in the cache now");
}

#[test]
fn a_data_set_that_is_not_there_is_named() {
    let hub = FakeHub::start().small("other.txt", "x");
    let client = Client::of(&hub);
    let fetch = |revision, file| fetch_dataset_file("org/name", revision, file, &client.settings, &mut |_, _, _| true);
    let error = fetch("refs/convert/parquet", "deep/0000.parquet").unwrap_err();
    assert!(matches!(&error, Error::DatasetNotFound(text) if text.contains("deep/0000.parquet")), "{error:?}");
    for evil in ["../x", "/etc/x", "a//b", ""] {
        assert!(matches!(fetch("main", evil), Err(Error::DatasetNotFound(_))), "{evil}");
    }
    let found = fetch("refs/convert/parquet", "other.txt").unwrap();
    assert_eq!(fs::read(found).unwrap(), b"x");
}
