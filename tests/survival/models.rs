//! Models that are none: cut, swapped, lying, hostile. Each fails its own job with a code, and the server stays as it is.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    setting,
    site::{Site, job},
};

/// Bad models of the short form.
const MODELS: u64 = 24;
/// Jobs that wait at once.
const BATCH: u64 = 8;

type Spoil = fn(&Path, &mut StdRng);

/// Ways to spoil a folder with a sound model.
const WAYS: [Spoil; 16] = [
    |folder, random| cut(&folder.join("model.safetensors"), random),
    |folder, random| cut(&folder.join("config.json"), random),
    |folder, random| cut(&folder.join("tokenizer.json"), random),
    |folder, random| flip(&folder.join("config.json"), random),
    |folder, random| flip(&folder.join("tokenizer.json"), random),
    // The head of a safetensors file: its length, then JSON.
    |folder, random| {
        let path = folder.join("model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        let place = random.random_range(0..2_000);
        bytes[place] = random.random();
        fs::write(path, bytes).unwrap();
    },
    |folder, random| head(folder, &random.random::<u64>().to_le_bytes()),
    |folder, _| head(folder, b"\x80\x02}q\x00(X\x05\x00\x00\x00modelq\x01ccollections\nOrderedDict\n"),
    |folder, _| head(folder, b"GGUF\x03\x00\x00\x00"),
    |folder, _| head(folder, b"PK\x03\x04"),
    |folder, random| change(folder, random, |random| json!(random.random_range(-3..100_000))),
    |folder, random| change(folder, random, |random| json!(random.random::<f64>() * 1e300)),
    |folder, random| change(folder, random, |random| random_value(random, 0)),
    |folder, random| change(folder, random, |_| json!({"rope_type": "yarn", "factor": -1, "auto_map": "evil.py"})),
    |folder, random| index(folder, random),
    |folder, _| {
        fs::remove_file(folder.join("model.safetensors")).unwrap();
        symlink("model.safetensors", folder.join("model.safetensors")).unwrap();
    },
];

fn cut(path: &Path, random: &mut StdRng) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..random.random_range(0..bytes.len())]).unwrap();
}

fn flip(path: &Path, random: &mut StdRng) {
    let mut bytes = fs::read(path).unwrap();
    for _ in 0..random.random_range(1..8) {
        let place = random.random_range(0..bytes.len());
        bytes[place] = random.random();
    }
    fs::write(path, bytes).unwrap();
}

fn head(folder: &Path, with: &[u8]) {
    let path = folder.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    bytes[..with.len()].copy_from_slice(with);
    fs::write(path, bytes).unwrap();
}

/// Gives one field of the configuration another value.
fn change(folder: &Path, random: &mut StdRng, value: impl Fn(&mut StdRng) -> Value) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let fields = config.as_object_mut().unwrap();
    let name = fields.keys().nth(random.random_range(0..fields.len())).unwrap().clone();
    fields.insert(name, value(random));
    fields.insert("rope_scaling".to_owned(), random_value(random, 2));
    fs::write(path, config.to_string()).unwrap();
}

/// An index that names files that are missing, elsewhere or itself.
fn index(folder: &Path, random: &mut StdRng) {
    let file = ["../../../etc/passwd", "/dev/zero", "model.safetensors.index.json", "missing.safetensors", ""];
    let file = file[random.random_range(0..file.len())];
    let index = json!({"metadata": {"total_size": u64::MAX}, "weight_map": {"model.embed_tokens.weight": file}});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    fs::remove_file(folder.join("model.safetensors")).unwrap();
}

fn random_value(random: &mut StdRng, depth: u32) -> Value {
    match random.random_range(0..if depth < 4 { 7 } else { 5 }) {
        0 => Value::Null,
        1 => json!(random.random::<bool>()),
        2 => json!(random.next_u64()),
        3 => json!(-random.random::<f32>()),
        4 => json!("\u{0}é".repeat(random.random_range(0..40))),
        5 => (0..random.random_range(0..4)).map(|_| random_value(random, depth + 1)).collect(),
        _ => json!({"factor": random_value(random, depth + 1), "type": random_value(random, depth + 1)}),
    }
}

#[tokio::test]
async fn bad_models_fail_their_jobs_and_nothing_else() {
    let seed = setting("GRASPD_TEST_SEED", std::process::id().into());
    let mut random = StdRng::seed_from_u64(seed);
    let mut site = Site::at_rest(&["--lease", "2s", "--slots", "2"]);
    let models = site.data().join("models");
    site.set("GRASPD_MODELS_DIR", models.to_str().unwrap());
    site.ensure_running().await;
    let server = site.process();
    let (mut failed, number) = (0, setting("GRASPD_TEST_MODELS", MODELS));
    for first in (0..number).step_by(BATCH.try_into().unwrap()) {
        let mut submitted = Vec::new();
        for model in first..number.min(first + BATCH) {
            let name = format!("bad-{model}");
            let folder = models.join(&name);
            copy(&folder);
            WAYS[usize::try_from(model).unwrap() % WAYS.len()](&folder, &mut random);
            let mut job = job();
            job["model"] = json!(format!("file:{name}"));
            submitted.push(site.until("a submission", async |site| site.try_submit(&name, &job).await).await);
        }
        for (offset, id) in submitted.iter().enumerate() {
            let done = site.finish_without_resume(id).await;
            let what = format!("seed {seed}, model {}: {done}", first + offset as u64);
            // A changed letter of a vocabulary may do no harm.
            assert!(matches!(done["status"].as_str(), Some("failed" | "succeeded")), "{what}");
            assert!(
                !matches!(done["error"]["code"].as_str(), Some("worker_crashed" | "stalled" | "internal")),
                "{what}"
            );
            failed += u32::from(done["status"] == "failed");
        }
        fs::remove_dir_all(&models).unwrap();
    }
    assert!(u64::from(failed) >= number / 2, "{failed} of {number} failed");
    assert_eq!(site.process(), server);
    assert!(!site.has_ended());
}

fn copy(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama");
    for file in fs::read_dir(source).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.join(file.file_name())).unwrap();
    }
}
