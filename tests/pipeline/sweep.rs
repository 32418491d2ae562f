//! Several sizes in one work folder, as `graspd sweep` runs them.

use graspd::job::{Report, Stage};
use serde_json::json;

use super::support::{Job, Watcher};

fn job(samples: u64, target: f64) -> Job {
    Job::new(&json!({
        "model": "file:tiny-llama",
        "calibration": {"dataset": "file:calibration", "selection": "first", "samples": samples, "sequence_length": 64},
        "grasp": {"target_compression": target},
        "evaluation": {"perplexity": ["file:evaluation"], "window": 128, "limit": 2},
    }))
}

fn weights(job: &Job) -> Vec<u8> {
    std::fs::read(job.output().join("model.safetensors")).unwrap()
}

#[test]
fn another_size_in_the_same_folder_shares_the_pass_and_changes_no_byte() {
    let alone = job(4, 0.3);
    let report = alone.run();
    assert_eq!(report.layers.block_influence.len(), 8);
    let mut second = job(4, 0.1);
    second.run();
    second.spec = alone.spec.clone();
    let watcher = Watcher::default();
    let shared = second.attempt(&watcher).unwrap();
    let stages: Vec<Stage> = watcher.seen.lock().unwrap().iter().map(|progress| progress.stage).collect();
    assert!(!stages.contains(&Stage::Gradients) && stages.contains(&Stage::Factorize));
    assert!(weights(&second) == weights(&alone));
    let scores = |report: &Report| report.evaluation.as_ref().unwrap().perplexity.clone();
    assert_eq!((&shared.layers, scores(&shared)), (&report.layers, scores(&report)));

    // Another text has another pass.
    second.spec = job(5, 0.3).spec;
    let watcher = Watcher::default();
    second.attempt(&watcher).unwrap();
    assert!(watcher.seen.lock().unwrap().iter().any(|progress| progress.stage == Stage::Gradients));
    assert!(weights(&second) != weights(&alone));
}
