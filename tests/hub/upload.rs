//! Uploads to a hub that misbehaves.

use std::{fs, path::Path};

use graspd::checkpoint::{Error, HubSettings, Upload, UploadFile, Uploaded, upload};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    TRIES,
    fake::{COMMIT, FakeHub, Fault},
    settings, weights,
};

/// A folder with a small and a large file.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), "{}").unwrap();
        fs::write(folder.path().join("model.safetensors"), weights()).unwrap();
        Self(folder)
    }

    fn upload(&self, hub: &FakeHub) -> Result<Uploaded, Error> {
        self.upload_with(&HubSettings { token: Some("hf_mine".into()), ..settings(hub, self.0.path()) })
    }

    fn upload_with(&self, settings: &HubSettings) -> Result<Uploaded, Error> {
        let files = ["config.json", "model.safetensors"].map(|name| file(self.0.path(), name)).to_vec();
        let order = Upload { repository: "me/smaller".into(), private: true, summary: "compressed".into(), files };
        upload(&order, settings, &mut |_, _, _| true)
    }
}

fn file(folder: &Path, name: &str) -> UploadFile {
    let content = fs::read(folder.join(name)).unwrap();
    let sha256 = Sha256::digest(&content).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    UploadFile { name: name.to_owned(), path: folder.join(name), bytes: content.len() as u64, sha256 }
}

/// The lines of the only commit.
fn commit(hub: &FakeHub) -> Vec<Value> {
    let commits = hub.commits();
    assert_eq!(commits.len(), 1);
    commits[0].lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_folder_arrives_in_one_commit_with_large_files_apart() {
    let hub = FakeHub::start();
    let folder = Folder::new();
    let uploaded = folder.upload(&hub).unwrap();
    assert_eq!(uploaded, Uploaded { url: format!("{}/me/smaller", hub.endpoint), commit: COMMIT.into() });
    assert_eq!(hub.created(), [json!({"type": "model", "organization": "me", "name": "smaller", "private": true})]);
    let large = file(folder.0.path(), "model.safetensors");
    assert_eq!(hub.stored(&large.sha256).unwrap(), weights());
    let lines = commit(&hub);
    assert_eq!(lines[0]["value"]["summary"], "compressed");
    assert_eq!(lines[1]["value"], json!({"path": "config.json", "content": "e30=", "encoding": "base64"}));
    let expected = json!({"path": "model.safetensors", "algo": "sha256", "oid": large.sha256, "size": large.bytes});
    assert_eq!((&lines[2]["key"], &lines[2]["value"]), (&json!("lfsFile"), &expected));
}

#[test]
fn a_large_file_goes_in_the_parts_the_storage_asks_for() {
    let hub = FakeHub::start().parts_of(500_000);
    let folder = Folder::new();
    folder.upload(&hub).unwrap();
    let large = file(folder.0.path(), "model.safetensors");
    assert_eq!(hub.stored(&large.sha256).unwrap(), weights());
    assert_eq!(
        hub.completions(),
        [json!({"oid": large.sha256, "parts": [
            {"partNumber": 1, "etag": "\"part-1\""}, {"partNumber": 2, "etag": "\"part-2\""}, {"partNumber": 3, "etag": "\"part-3\""},
        ]})]
    );
}

#[test]
fn what_the_hub_has_is_not_sent_again_and_an_existing_repository_will_do() {
    let hub = FakeHub::start();
    let folder = Folder::new();
    folder.upload(&hub).unwrap();
    let sent = hub.puts();
    let hub = hub.fault("/api/repos/create", 1, Fault::Status(409, None));
    folder.upload(&hub).unwrap();
    assert_eq!((sent, hub.puts()), (1, 1));
}

#[test]
fn passing_trouble_is_waited_for_and_lasting_trouble_ends_in_time() {
    for path in ["/api/repos/create", "/preupload/", "/objects/batch", "/storage/", "/commit/"] {
        for status in [429, 500, 503] {
            let hub = FakeHub::start().fault(path, TRIES - 1, Fault::Status(status, Some(("retry-after", "0".into()))));
            assert!(Folder::new().upload(&hub).is_ok(), "{status} of {path}");
        }
        let hub = FakeHub::start().fault(path, usize::MAX, Fault::Status(500, None));
        let error = Folder::new().upload(&hub).unwrap_err();
        assert!(matches!(&error, Error::HubUnavailable(text) if text.contains("500")), "{path}: {error:?}");
        assert!(hub.commits().is_empty(), "{path}");
    }
}

#[test]
fn what_may_not_be_written_says_what_to_do() {
    for (status, words) in [(401, "X-HF-Token"), (403, "write permission"), (404, "me/smaller"), (400, "400")] {
        let hub = FakeHub::start().fault("/preupload/", usize::MAX, Fault::Status(status, None));
        let error = Folder::new().upload(&hub).unwrap_err();
        assert!(matches!(&error, Error::HubRefused(text) if text.contains(words)), "{status}: {error:?}");
    }
    let hub = FakeHub::start();
    let offline = HubSettings { offline: true, ..settings(&hub, Path::new("unused")) };
    assert!(Folder::new().upload_with(&offline).unwrap_err().to_string().contains("HF_HUB_OFFLINE"));
    assert!(hub.tokens().is_empty());
}

#[test]
fn answers_that_make_no_sense_are_errors_and_nothing_is_committed() {
    for (path, answer) in [
        ("/objects/batch", json!({"objects": []})),
        ("/objects/batch", json!([])),
        ("/preupload/", json!({"files": 3})),
        ("/commit/", json!({})),
    ] {
        let hub = FakeHub::start().fault(path, usize::MAX, Fault::Json(answer.clone()));
        let error = Folder::new().upload(&hub).unwrap_err();
        assert!(matches!(error, Error::HubUnavailable(_)), "{path} {answer}: {error:?}");
        assert!(hub.commits().is_empty());
    }
}

#[test]
fn the_token_goes_to_the_hub_and_never_to_the_storage() {
    let hub = FakeHub::start();
    Folder::new().upload(&hub).unwrap();
    assert_eq!(hub.storage_tokens(), [None], "the storage's addresses carry their own signatures");
    let tokens = hub.tokens();
    let mine = tokens.iter().filter(|token| token.as_deref() == Some("Bearer hf_mine")).count();
    assert_eq!((mine, tokens.len()), (5, 6), "{tokens:?}");
}

#[test]
fn a_cancel_ends_an_upload() {
    let hub = FakeHub::start().fault("/commit/", usize::MAX, Fault::Silence);
    let folder = Folder::new();
    let files = vec![file(folder.0.path(), "config.json")];
    let order = Upload { repository: "me/smaller".into(), private: false, summary: "x".into(), files };
    let settings = settings(&hub, folder.0.path());
    let mut told = 0;
    let result = upload(&order, &settings, &mut |_, _, _| {
        told += 1;
        told < 3
    });
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
}
