//! Recovery as a stage of whole jobs.

use std::fs;

use graspd::{
    job::{FailureCode, Progress, Report, Stage},
    pipeline::Error,
};
use serde_json::{Value, json};

use super::support::{Job, Watcher, fixtures};

pub(crate) fn spec(grasp: &Value, recovery: &Value) -> Value {
    json!({
        "model": "file:tiny-llama",
        "calibration": {"dataset": "file:calibration", "selection": "first", "samples": 4, "sequence_length": 64},
        "grasp": grasp,
        "recovery": recovery,
        "evaluation": {"perplexity": ["file:evaluation"], "inference": false, "window": 128, "limit": 8},
    })
}

pub(crate) fn compressed() -> Value {
    // As it comes first, so that a few steps have something to win back.
    json!({"layers": [2, 3], "retain_ratio": 0.1, "refine": "none"})
}

/// A few steps on the text that ships with the project.
pub(crate) fn short(method: &str) -> Value {
    json!({"method": method, "dataset": "file:calibration", "max_steps": 6, "batch_size": 4, "micro_batch_size": 2,
        "max_length": 64, "validate_every": 2, "learning_rate": 0.002})
}

fn scores(report: &Report) -> (f64, f64, f64) {
    let score = &report.evaluation.as_ref().unwrap().perplexity["file:evaluation"];
    (score.before.unwrap(), score.after, score.recovered.unwrap())
}

pub(crate) fn weights(job: &Job, folder: &str) -> Vec<u8> {
    fs::read(job.output().join(folder).join("model.safetensors")).unwrap()
}

#[test]
fn training_wins_perplexity_back_and_keeps_the_shapes() {
    for method in ["full", "lora"] {
        let plain = Job::new(&spec(&compressed(), &Value::Null));
        let expected = plain.run();
        let mut recovery = short(method);
        recovery["keep_unrecovered"] = json!(true);
        let job = Job::new(&spec(&compressed(), &recovery));
        let report = job.run();
        let (before, after, recovered) = scores(&report);
        assert!(before < recovered && recovered < after, "{method}: {before}, {after}, {recovered}");
        assert_eq!((report.parameters, report.bytes.after), (expected.parameters, expected.bytes.after));
        assert!(weights(&job, "unrecovered") == weights(&plain, ""), "{method}: the folder before recovery");
        assert!(weights(&job, "") != weights(&plain, ""));
        let found = report.recovery.unwrap();
        assert_eq!((found.steps, found.layers.as_slice(), found.curve.len()), (6, [2, 3].as_slice(), 6));
        assert_eq!(found.validation.iter().map(|point| point.step).collect::<Vec<_>>(), [2, 4, 6]);
        assert!(found.tokens_per_second > 0.0 && found.validation_examples > 0);
        assert!(found.validation[2].loss < found.validation[0].loss);
        let mut again = Job::new(&spec(&json!({"layers": [1], "retain_ratio": 0.9}), &Value::Null));
        again.models_dir = job.folder.path().to_owned();
        again.spec.model = "file:output".parse().unwrap();
        let read = again.run().evaluation.unwrap().perplexity["file:evaluation"].before.unwrap();
        assert!((read / recovered - 1.0).abs() < 1e-6, "{method}: {recovered} as written, {read} as read");
    }
}

#[test]
fn each_step_is_told_with_the_loss_of_the_one_before() {
    let job = Job::new(&spec(&compressed(), &short("lora")));
    let watcher = Watcher::default();
    let curve = job.attempt(&watcher).unwrap().recovery.unwrap().curve;
    let seen = watcher.seen.lock().unwrap();
    let told = |step: u64| {
        let at =
            |progress: &&Progress| progress.stage == Stage::Recover && progress.done == step && progress.part.is_none();
        seen.iter().find(at).unwrap().training
    };
    assert_eq!(told(0), None);
    for (step, pair) in (1..).zip(curve.windows(2)) {
        let training = told(step).unwrap();
        assert_eq!((training.loss, training.learning_rate), (pair[0].loss, pair[1].learning_rate), "step {step}");
        assert!(training.tokens_per_second > 0.0);
    }
}

#[test]
fn eight_records_are_learned_by_heart() {
    let record = |index: usize| json!({"instruction": format!("Say number {index}."), "input": "", "output": format!("It is {} of them.", index * 7)});
    let records: Vec<Value> = (0..8).map(record).collect();
    for method in ["full", "lora"] {
        let mut recovery = json!({"method": method, "dataset": "alpaca", "epochs": 25, "batch_size": 8, "warmup_steps": 0,
            "micro_batch_size": 3, "max_length": 96, "learning_rate": 0.001});
        if method == "lora" {
            recovery["dropout"] = json!(0.0);
        }
        let mut job = Job::new(&spec(&compressed(), &recovery));
        let folder = job.folder.path().join("texts");
        fs::create_dir_all(folder.join("alpaca")).unwrap();
        fs::write(folder.join("alpaca/train.json"), json!(records).to_string()).unwrap();
        for name in ["calibration.txt", "evaluation.txt"] {
            fs::copy(fixtures().join("text").join(name), folder.join(name)).unwrap();
        }
        job.datasets_dir = folder;
        let curve = job.run().recovery.unwrap().curve;
        let losses: Vec<f64> = curve.iter().map(|point| point.loss).collect();
        assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{method}: {losses:?}");
        assert!(losses[24] < 0.8 * losses[0], "{method}: {losses:?}");
    }
}

#[test]
fn a_killed_training_goes_on_and_ends_with_the_same_curve_and_bytes() {
    let recovery = json!({"method": "lora", "dataset": "file:calibration", "epochs": 4, "batch_size": 4, "max_length": 32,
        "micro_batch_size": 4, "validate_every": 30, "max_steps": 120, "rank": 4});
    let whole = Job::new(&spec(&compressed(), &recovery));
    let expected = whole.run().recovery.unwrap();
    let stopped = Job::new(&spec(&compressed(), &recovery));
    let mut attempts = 0;
    let found = loop {
        attempts += 1;
        let watcher = Watcher { cancel_after: Some(1), ..Watcher::default() };
        match stopped.attempt(&watcher) {
            Err(Error::Cancelled) => {}
            other => break other.unwrap().recovery.unwrap(),
        }
    };
    assert!(attempts > 5, "{attempts}");
    assert_eq!((&found.curve, &found.validation), (&expected.curve, &expected.validation));
    assert!(weights(&whole, "") == weights(&stopped, ""));
}

#[test]
fn a_loss_that_is_not_finite_ends_the_job_with_the_field() {
    let mut recovery = short("lora");
    // Too much for single precision, so that the first product with it is not a number.
    recovery["alpha"] = json!(1e39);
    recovery["rank"] = json!(1);
    let failure =
        Job::new(&spec(&compressed(), &recovery)).attempt(&Watcher::default()).unwrap_err().failure().unwrap();
    assert_eq!(failure.code, FailureCode::NumericalFailure);
    assert!(failure.message.contains("recovery.learning_rate"), "{}", failure.message);
}
