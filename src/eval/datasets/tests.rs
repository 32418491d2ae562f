use std::{fs, os::unix::fs::symlink, time::Duration};

use super::*;

fn hub() -> HubSettings {
    HubSettings {
        endpoint: "http://127.0.0.1:9".into(),
        cache_dir: "/nonexistent".into(),
        token: None,
        offline: true,
        retry_delay: Duration::ZERO,
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

fn load_evaluation(dir: &tempfile::TempDir, name: &str) -> (String, String) {
    load_evaluation_text(&name.parse().unwrap(), dir.path(), &hub()).unwrap()
}

#[test]
fn every_layout_is_found() {
    let dir = folder(&[
        ("wikitext2/train.txt", " a \n b "),
        ("c4/train.jsonl", "{\"text\": \"x\", \"url\": \"u\"}\n\n{\"text\": \"y\"}\n"),
        ("ptb/test.json", "[{\"sentence\": \"x\"}, {\"sentence\": \"y\"}]"),
        ("mine.txt", "mine"),
        ("deep/own/validation.txt", "own"),
    ]);
    assert_eq!(load(&dir, "wikitext2", "train").unwrap(), " a \n b ");
    assert_eq!(load(&dir, "c4", "train").unwrap(), "x\n\ny");
    assert_eq!(load(&dir, "file:mine", "train").unwrap(), "mine");
    assert_eq!(load(&dir, "file:mine.txt", "train").unwrap(), "mine");
    assert_eq!(load_evaluation(&dir, "ptb"), ("x\n\ny".into(), "test".into()));
    assert_eq!(load_evaluation(&dir, "file:deep/own"), ("own".into(), "validation".into()));
    assert_eq!(load_evaluation(&dir, "file:mine"), ("mine".into(), "all".into()));
}

#[test]
fn the_test_split_comes_before_validation() {
    let dir = folder(&[("wikitext2/validation.txt", "v"), ("wikitext2/test.jsonl", "{\"text\": \"t\"}")]);
    assert_eq!(load_evaluation(&dir, "wikitext2"), ("t".into(), "test".into()));
}

#[test]
fn what_is_missing_is_named_with_every_place_it_could_be() {
    let dir = folder(&[]);
    for (name, places) in [
        ("file:d", ["d/train.txt", "d/train.jsonl", "d/train.json", "d.txt", "d.json"].as_slice()),
        ("wikitext2", &["wikitext2/train.txt", "wikitext2/train.jsonl", "HF_HUB_OFFLINE"]),
    ] {
        let error = load_text(&name.parse().unwrap(), "train", dir.path(), &hub()).unwrap_err();
        assert!(matches!(error, Error::DatasetNotFound(_)), "{error:?}");
        for place in places {
            assert!(error.to_string().contains(place), "{error}");
        }
    }
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_field() {
    let dir = folder(&[
        ("empty.txt", " \n"),
        ("field.jsonl", "{\"text\": \"x\"}\n{\"instruction\": \"y\"}"),
        ("number.jsonl", "{\"text\": 7}"),
        ("broken.jsonl", "{\"text\": \"x\"}\n\n{\"text\": "),
        ("object.json", "{}"),
        ("array.json", "[{\"text\": \"x\"}, {\"title\": \"y\"}]"),
        ("none.json", "[]"),
    ]);
    fs::write(dir.path().join("binary.txt"), [0xff, 0xfe, 0x00]).unwrap();
    for (name, words) in [
        ("empty", "holds no text"),
        ("field", "line 2 has no field \"text\""),
        ("number", "line 1 has a field \"text\" that is not a string"),
        ("broken", "line 3 is not a JSON object"),
        ("object", "not a JSON array"),
        ("array", "record 1 (from 0) has no field \"text\""),
        ("none", "holds no text"),
        ("binary", "not UTF-8"),
    ] {
        let name = format!("file:{name}").parse().unwrap();
        let error = load_text(&name, "train", dir.path(), &hub()).unwrap_err();
        assert!(matches!(error, Error::InvalidDataset(_)), "{error:?}");
        assert!(error.to_string().contains(words), "{name}: {error}");
    }
}

#[test]
fn links_out_of_the_data_sets_folder_are_refused() {
    let outside = folder(&[("secret.txt", "secret")]);
    let dir = folder(&[]);
    symlink(outside.path().join("secret.txt"), dir.path().join("mine.txt")).unwrap();
    symlink(outside.path(), dir.path().join("wikitext2")).unwrap();
    fs::write(outside.path().join("test.txt"), "secret").unwrap();
    assert!(load(&dir, "file:mine", "test").unwrap_err().contains("leads out"));
    assert!(load(&dir, "wikitext2", "test").unwrap_err().contains("leads out"));
}
