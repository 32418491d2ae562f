//! Whole jobs: what they leave behind, how they go on after a stop, and what they say of bad input.

use std::{collections::BTreeMap, fs, path::Path};

use graspd::{job::FailureCode, pipeline::Error};
use serde_json::{Value, json};

use super::support::{Job, Watcher, fixtures};

fn spec(model: &str, grasp: &Value) -> Value {
    json!({
        "model": model,
        "calibration": {"dataset": "file:calibration", "selection": "first", "samples": 4, "sequence_length": 64},
        "grasp": grasp,
        "evaluation": {"perplexity": ["file:evaluation"], "inference": false, "window": 128, "limit": 8},
    })
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn weights(job: &Job) -> Vec<u8> {
    fs::read(job.output().join("model.safetensors")).unwrap()
}

/// A job on a copy of the sample model after `change` was done to it.
fn failure_after(change: impl FnOnce(&Path), grasp: &Value) -> (FailureCode, String) {
    let mut job = Job::new(&spec("file:model", grasp));
    let models = job.folder.path().join("models");
    copy(&fixtures().join("tiny-llama"), &models.join("model"));
    change(&models.join("model"));
    job.models_dir = models;
    failure(&job)
}

/// A change to a copy of the sample model, the code it must lead to, and words of the message.
type Case = (Box<dyn FnOnce(&Path)>, FailureCode, &'static str);

fn failure(job: &Job) -> (FailureCode, String) {
    let failure = job.attempt(&Watcher::default()).unwrap_err().failure().expect("not cancelled");
    (failure.code, failure.message)
}

fn edit_config(folder: &Path, edit: impl FnOnce(&mut Value)) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut config);
    fs::write(path, config.to_string()).unwrap();
}

#[test]
fn the_folder_holds_everything_and_its_numbers_agree() {
    let job = Job::new(&spec("file:tiny-llama", &json!({"layers": [2, 5], "retain_ratio": 0.3})));
    let report = job.run();
    let sums = fs::read_to_string(job.output().join("SHA256SUMS")).unwrap();
    let names: Vec<&str> = sums.lines().map(|line| &line[66..]).collect();
    assert_eq!(
        names,
        [
            "README.md",
            "config.json",
            "configuration_grasp.py",
            "generation_config.json",
            "model.safetensors",
            "modeling_grasp.py",
            "report.json",
            "singular_values.json",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        assert_eq!(
            fs::read(job.output().join(name)).unwrap(),
            fs::read(fixtures().join("tiny-llama").join(name)).unwrap()
        );
    }
    let saved: u64 = report.matrices.iter().map(|matrix| matrix.parameters_before - matrix.parameters_after).sum();
    assert_eq!(report.parameters.before - report.parameters.after, saved);
    assert_eq!(report.bytes.after, fs::metadata(job.output().join("model.safetensors")).unwrap().len());
    assert_eq!(report.matrices.len(), 14);
    let stages: Vec<&str> = report.stages.iter().map(|stage| stage.stage.as_str()).collect();
    assert_eq!(stages, ["download", "load", "calibrate", "influence", "evaluate", "gradients", "factorize", "export"]);
    assert!(report.peak_rss_bytes > 10 << 20);
    let written: Value = serde_json::from_slice(&fs::read(job.output().join("report.json")).unwrap()).unwrap();
    assert_eq!(written, serde_json::to_value(&report).unwrap());
}

#[test]
fn a_compressed_checkpoint_loads_again_and_scores_the_same() {
    for grasp in [
        json!({"layers": 3, "retain_ratio": 0.3}),
        json!({"layers": 2, "method": "remove"}),
        json!({"layers": 3, "importance_threshold": 0.9}),
    ] {
        let first = Job::new(&spec("file:tiny-llama", &grasp));
        let after = first.run().evaluation.unwrap().perplexity["file:evaluation"].after;
        let mut second = Job::new(&spec("file:output", &json!({"layers": [1], "retain_ratio": 0.5})));
        second.models_dir = first.folder.path().to_owned();
        let before = second.run().evaluation.unwrap().perplexity["file:evaluation"].before.unwrap();
        assert!((before / after - 1.0).abs() < 1e-6, "{grasp}: {after} as written, {before} as read");
    }
}

#[test]
fn a_factored_checkpoint_can_be_compressed_again() {
    let first = Job::new(&spec("file:tiny-llama", &json!({"preset": "paper", "layers": [2, 3], "retain_ratio": 0.6})));
    let report = first.run();
    let mut second = Job::new(&spec("file:output", &json!({"preset": "paper", "layers": [3, 4], "retain_ratio": 0.3})));
    second.models_dir = first.folder.path().to_owned();
    let again = second.run();
    assert_eq!(again.parameters.before, report.parameters.after);
    let layer_3 = again.matrices.iter().find(|matrix| matrix.name == "model.layers.3.mlp.up_proj").unwrap();
    assert!(layer_3.parameters_after < layer_3.parameters_before && layer_3.parameters_before < 352 * 128);
    let config: Value = serde_json::from_slice(&fs::read(second.output().join("config.json")).unwrap()).unwrap();
    assert_eq!(config["model_type"], "grasp_llama");
    assert_eq!(config["truncation_ranks"].as_object().unwrap().len(), 21);
}

#[test]
fn a_stopped_job_goes_on_where_it_was_and_ends_with_the_same_bytes() {
    for grasp in [
        json!({"preset": "paper", "layers": 3, "retain_ratio": 0.3}),
        json!({"preset": "best", "layers": 3, "retain_ratio": 0.3}),
        json!({"layers": 2, "retain_ratio": 0.3, "schedule": "iterative"}),
    ] {
        let whole = Job::new(&spec("file:tiny-llama", &grasp));
        let watcher = Watcher::default();
        whole.attempt(&watcher).unwrap();
        let steps = *watcher.steps.lock().unwrap();
        assert!(steps >= 5, "{steps} steps");

        let stopped = Job::new(&spec("file:tiny-llama", &grasp));
        let mut seen = BTreeMap::new();
        for _ in 0..steps {
            let watcher = Watcher { cancel_after: Some(1), ..Watcher::default() };
            match stopped.attempt(&watcher) {
                Err(Error::Cancelled) => *seen.entry(*watcher.steps.lock().unwrap()).or_insert(0) += 1,
                other => panic!("a stop is expected, not {other:?}"),
            }
        }
        // Every attempt finished exactly one step more, so none was done twice.
        assert_eq!(seen, BTreeMap::from([(1, steps)]));
        let last = Watcher::default();
        stopped.attempt(&last).unwrap();
        assert_eq!(*last.steps.lock().unwrap(), 0, "nothing was left to do but to score and write");
        assert!(weights(&whole) == weights(&stopped), "{grasp}");
    }
}

#[test]
fn the_same_job_twice_gives_the_same_bytes() {
    let run = || {
        let mut body = spec("file:tiny-llama", &json!({"layers": 2}));
        body["calibration"]["selection"] = json!("random");
        let job = Job::new(&body);
        job.run();
        weights(&job)
    };
    assert!(run() == run());
}

#[test]
fn every_size_control_and_split_makes_what_it_says() {
    let run = |grasp: &Value| Job::new(&spec("file:tiny-llama", grasp)).run();
    let removed = |report: &graspd::job::Report| 1.0 - report.parameters.after as f64 / report.parameters.before as f64;
    let report = run(&json!({"target_compression": 0.2}));
    assert!((0.2 - 1e-9..0.21).contains(&removed(&report)), "{}", removed(&report));
    let report = run(&json!({"target_compression": 0.2, "method": "remove"}));
    assert!((0.2..0.35).contains(&removed(&report)) && report.matrices.is_empty(), "{}", removed(&report));
    let report = run(&json!({"layers": 3, "layer_metric": "angular"}));
    let run_of = &report.layers.redundant;
    assert!(run_of.len() == 3 && run_of[2] == run_of[0] + 2 && report.layers.angular_distance.unwrap().len() == 6);
    let report = run(&json!({"layers": [1], "projections": ["up_proj", "q_proj"], "score": "gradient"}));
    let names: Vec<&str> = report.matrices.iter().map(|matrix| matrix.name.as_str()).collect();
    assert_eq!(names, ["model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj"]);
    let score = |split: &str| {
        run(&json!({"layers": [1], "sigma_split": split})).evaluation.unwrap().perplexity["file:evaluation"].after
    };
    let both = score("both");
    // The product is the same; only its rounding to bf16 differs.
    assert!(["left", "right"].iter().all(|split| (score(split) / both - 1.0).abs() < 0.01));
}

#[test]
fn bad_models_are_refused_with_a_code_and_the_file_or_field() {
    let grasp = json!({"layers": 2});
    let model = |folder: &Path| folder.join("model.safetensors");
    let truncate =
        |path: &Path, length: u64| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
    let cases: Vec<Case> = vec![
        (Box::new(move |folder| truncate(&model(folder), 1_000_000)), FailureCode::InvalidModel, "model.safetensors"),
        (Box::new(move |folder| truncate(&model(folder), 3)), FailureCode::InvalidModel, "too short"),
        (
            Box::new(move |folder| fs::write(model(folder), [0xff; 64]).unwrap()),
            FailureCode::InvalidModel,
            "header claims",
        ),
        (Box::new(move |folder| fs::remove_file(model(folder)).unwrap()), FailureCode::InvalidModel, "is missing"),
        (Box::new(move |folder| poison(&model(folder))), FailureCode::InvalidModel, "not finite"),
        (
            Box::new(|folder| fs::remove_file(folder.join("config.json")).unwrap()),
            FailureCode::InvalidModel,
            "config.json",
        ),
        (Box::new(|folder| fs::write(folder.join("config.json"), "{").unwrap()), FailureCode::InvalidModel, "not JSON"),
        (
            Box::new(|folder| edit_config(folder, |config| config["architectures"] = json!(["GPT2LMHeadModel"]))),
            FailureCode::UnsupportedModel,
            "GPT2LMHeadModel",
        ),
        (
            Box::new(|folder| edit_config(folder, |config| config["hidden_size"] = json!(130))),
            FailureCode::InvalidModel,
            "has the shape",
        ),
        (
            Box::new(|folder| edit_config(folder, |config| config["num_hidden_layers"] = json!(4_000_000_000_u64))),
            FailureCode::InvalidModel,
            "num_hidden_layers",
        ),
        (
            Box::new(|folder| edit_config(folder, |config| config["num_hidden_layers"] = json!(9))),
            FailureCode::InvalidModel,
            "model.layers.8",
        ),
        (
            Box::new(|folder| fs::write(folder.join("tokenizer.json"), "{}").unwrap()),
            FailureCode::InvalidModel,
            "tokenizer.json",
        ),
        (
            Box::new(|folder| fs::remove_file(folder.join("tokenizer.json")).unwrap()),
            FailureCode::InvalidModel,
            "tokenizer.json",
        ),
        (Box::new(|folder| fs::remove_dir_all(folder).unwrap()), FailureCode::ModelNotFound, "file:model"),
    ];
    for (change, code, words) in cases {
        let (found, message) = failure_after(change, &grasp);
        assert!(found == code && message.contains(words), "{found:?}: {message}; expected {code:?} with {words:?}");
    }
}

/// Overwrites the last number of the weights with a NaN.
fn poison(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let end = bytes.len();
    bytes[end - 2..].copy_from_slice(&[0xc0, 0x7f]);
    fs::write(path, bytes).unwrap();
}

#[test]
fn jobs_that_do_not_fit_are_refused_with_the_field() {
    for (grasp, words) in [
        (json!({"layers": 9}), "grasp.layers"),
        (json!({"layers": [8]}), "grasp.layers"),
        (json!({"layers": 8, "method": "remove"}), "at least one must stay"),
        (json!({"target_compression": 0.95}), "grasp.target_compression"),
    ] {
        let (code, message) = failure(&Job::new(&spec("file:tiny-llama", &grasp)));
        assert!(code == FailureCode::InvalidSpec && message.contains(words), "{code:?}: {message}");
    }
    let mut long = spec("file:tiny-llama", &json!({}));
    long["calibration"]["sequence_length"] = json!(1025);
    let (code, message) = failure(&Job::new(&long));
    assert!(code == FailureCode::InvalidSpec && message.contains("calibration.sequence_length"), "{message}");
    let mut lost = spec("file:tiny-llama", &json!({}));
    lost["calibration"]["dataset"] = json!("file:nowhere");
    let (code, message) = failure(&Job::new(&lost));
    assert!(code == FailureCode::DatasetNotFound && message.contains("nowhere/train.txt"), "{message}");
}
