//! The refinement: what it is worth, and that it changes nothing else.

use graspd::job::Report;
use serde_json::{Value, json};

use super::support::Job;

fn run(grasp: &Value) -> Report {
    Job::new(&json!({
        "model": "file:tiny-llama",
        "calibration": {"dataset": "file:calibration", "selection": "first", "samples": 32, "sequence_length": 128},
        "grasp": grasp,
        "evaluation": {"perplexity": ["file:evaluation"], "window": 256, "limit": 12},
    }))
    .run()
}

#[test]
fn a_refined_model_is_as_small_and_loses_less() {
    for grasp in [
        json!({"target_compression": 0.2}),
        json!({"target_compression": 0.4}),
        json!({"basis": "whitened", "layers": [2, 4], "retain_ratio": 0.3}),
    ] {
        let with = |refine: &str| {
            let mut grasp = grasp.clone();
            grasp["refine"] = json!(refine);
            run(&grasp)
        };
        let (once, refined) = (with("none"), with("sequential"));
        let perplexity = |report: &Report| report.evaluation.as_ref().unwrap().perplexity["file:evaluation"].after;
        assert!(perplexity(&refined) < perplexity(&once), "{grasp}: {} {}", perplexity(&refined), perplexity(&once));
        let ranks = |report: &Report| report.matrices.iter().map(|matrix| matrix.rank).collect::<Vec<_>>();
        assert_eq!((refined.parameters, ranks(&refined)), (once.parameters, ranks(&once)), "{grasp}");
    }
}
