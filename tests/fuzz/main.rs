//! Bytes from outside that are wrong in any way: an error, never a panic, whatever they are.
//!
//! `cargo test` replays what is kept in `__fuzz__` and adds some random inputs; `.ci/fuzz_bytes` searches for minutes,
//! guided by coverage.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use bolero::check;
use graspd::{checkpoint::Weights, eval::Encoder, job::JobSpec, model::Config};
use serde_json::Value;
use tempfile::TempDir;

/// Tokens of the model whose tokenizer is replaced.
const VOCAB_SIZE: usize = 512;
/// Something of every kind that a tokenizer treats by itself.
const TEXT: &str = "Hello, wörld! 12 345\n\n\tdéjà-vu 你好 🦀 <s></s>";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama").join(name)
}

/// A folder in memory where there is such a place: it is written to thousands of times a second.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

#[test]
fn safetensors_header() {
    let folder = folder();
    check!().for_each(|bytes: &[u8]| {
        fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        let Ok(weights) = Weights::open(folder.path()) else { return };
        for (name, entry) in weights.iter() {
            assert!(entry.elements() <= bytes.len() as u64 * 8, "{name} is larger than its file");
            weights.bytes(name).unwrap();
        }
    });
}

#[test]
fn index_json() {
    let folder = folder();
    for shard in ["a.safetensors", "b.safetensors"] {
        let header = format!(r#"{{"{shard}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
        let content = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 4]].concat();
        fs::write(folder.path().join(shard), content).unwrap();
    }
    check!().for_each(|bytes: &[u8]| {
        fs::write(folder.path().join("model.safetensors.index.json"), bytes).unwrap();
        let Ok(weights) = Weights::open(folder.path()) else { return };
        assert!(weights.iter().all(|(name, _)| weights.bytes(name).unwrap().len() == 4));
    });
}

#[test]
fn config_json() {
    check!().for_each(|bytes: &[u8]| {
        let Ok(json) = serde_json::from_slice::<Value>(bytes) else { return };
        let Ok(config) = Config::parse(&json) else { return };
        assert!(config.num_layers > 0 && config.hidden_size > 0 && config.vocab_size > 0);
        assert_eq!(config.num_heads % config.num_kv_heads, 0);
    });
}

#[test]
fn tokenizer_json() {
    let folder = folder();
    fs::copy(fixture("tokenizer_config.json"), folder.path().join("tokenizer_config.json")).unwrap();
    check!().for_each(|bytes: &[u8]| {
        fs::write(folder.path().join("tokenizer.json"), bytes).unwrap();
        let Ok(encoder) = Encoder::open(folder.path(), VOCAB_SIZE) else { return };
        for special in [false, true] {
            let Ok(ids) = encoder.encode(TEXT, special) else { continue };
            assert!(ids.iter().all(|&id| (id as usize) < VOCAB_SIZE));
        }
    });
}

#[test]
fn job_spec() {
    check!().for_each(|bytes: &[u8]| {
        let Ok(json) = serde_json::from_slice::<Value>(bytes) else { return };
        for parse in [JobSpec::parse, JobSpec::parse_evaluation] {
            let Ok(spec) = parse(&json) else { continue };
            let stored = serde_json::to_vec(&spec).unwrap();
            assert_eq!(serde_json::from_slice::<JobSpec>(&stored).unwrap(), spec, "as it is read back from the queue");
        }
    });
}
