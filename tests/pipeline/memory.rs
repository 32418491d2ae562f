//! The memory limit: it decides where the layers are, and changes nothing else.

use graspd::{
    job::{FailureCode, Report},
    pipeline::Error,
};
use serde_json::{Value, json};

use super::support::{Job, Watcher};

fn job(grasp: &Value) -> Job {
    Job::new(&json!({
        "model": "file:tiny-llama",
        "calibration": {"dataset": "file:calibration", "selection": "first", "samples": 6, "sequence_length": 200},
        "grasp": grasp,
        "evaluation": {"perplexity": ["file:evaluation"], "inference": false, "window": 128, "limit": 5},
    }))
}

/// Whether a job within `limit` bytes gets as far as its first step.
fn fits(grasp: &Value, limit: u64) -> bool {
    let job = Job { memory_limit: limit, ..job(grasp) };
    match job.attempt(&Watcher { cancel_after: Some(1), ..Watcher::default() }) {
        Err(Error::Cancelled) => true,
        other => {
            assert_eq!(other.unwrap_err().failure().unwrap().code, FailureCode::OutOfMemory);
            false
        }
    }
}

/// The smallest limit within which the job runs.
fn least(grasp: &Value) -> u64 {
    let (mut low, mut high) = (1 << 20, 8 << 30);
    while high - low > 1 << 16 {
        let middle = u64::midpoint(low, high);
        if fits(grasp, middle) { high = middle } else { low = middle }
    }
    high
}

fn run(grasp: &Value, limit: u64) -> (Report, Vec<u8>) {
    let job = Job { memory_limit: limit, ..job(grasp) };
    let report = job.run();
    let weights = std::fs::read(job.output().join("model.safetensors")).unwrap();
    (report, weights)
}

#[test]
fn streamed_layers_give_the_same_bytes_and_the_same_scores() {
    for grasp in [
        json!({"layers": 3, "retain_ratio": 0.3}),
        json!({"layers": 2, "retain_ratio": 0.3, "schedule": "iterative"}),
        json!({"layers": 3, "method": "remove"}),
        json!({"layers": 2, "layer_metric": "angular", "score": "magnitude"}),
    ] {
        let (streamed, streamed_weights) = run(&grasp, least(&grasp));
        let (resident, resident_weights) = run(&grasp, 8 << 30);
        assert_eq!((streamed.residency.as_str(), resident.residency.as_str()), ("streamed", "resident"), "{grasp}");
        assert!(streamed_weights == resident_weights, "{grasp}");
        assert_eq!(streamed.layers, resident.layers);
        assert_eq!(streamed.evaluation, resident.evaluation);
    }
}
