//! tiny-llama on the text that ships with it: 16 calibration windows of 128 tokens, 30 evaluation windows of 256,
//! the three layers of least influence, 30 % kept. The numbers are torch's, in float32, the decompositions and scores
//! in float64.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use graspd::{
    checkpoint::Weights,
    eval::Tokens,
    job::{Report, spec::Selection},
    model::{Config, Decoder},
};
use serde_json::{Value, json};

use super::support::{Job, fixtures, in_memory};

fn golden() -> Value {
    serde_json::from_slice(&std::fs::read(fixtures().join("golden/tiny-llama.sample.json")).unwrap()).unwrap()
}

fn golden_tensors() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixtures().join("golden/tiny-llama.sample.safetensors"), &Device::Cpu).unwrap()
}

fn spec(grasp: &Value) -> Value {
    json!({
        "model": "file:tiny-llama",
        "calibration": {"dataset": "file:calibration", "selection": "first", "samples": 16, "sequence_length": 128},
        "grasp": grasp,
        "evaluation": {"perplexity": ["file:evaluation"], "window": 256, "limit": 30},
    })
}

/// Share of `expected` that `found` holds.
fn overlap(found: &[usize], expected: &Value) -> (usize, usize) {
    let expected: Vec<usize> = serde_json::from_value(expected.clone()).unwrap();
    (expected.iter().filter(|index| found.contains(index)).count(), expected.len())
}

fn kept_share(report: &Report, expected: &Value) -> f64 {
    let counts = report.matrices.iter().map(|matrix| overlap(&matrix.kept, &expected[&matrix.name]));
    let (same, all) = counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    assert_eq!(all, 438, "in each of three layers 28 of each MLP matrix, 19 of q and o, 12 of k and v");
    same as f64 / all as f64
}

fn assert_close(name: &str, found: f64, expected: &Value, relative: f64) {
    let expected = expected.as_f64().unwrap();
    assert!((found / expected - 1.0).abs() < relative, "{name}: {found}, torch {expected}");
}

fn scores(report: &Report) -> (f64, f64, u64) {
    let score = &report.evaluation.as_ref().unwrap().perplexity["file:evaluation"];
    (score.before.unwrap(), score.after, score.tokens)
}

#[test]
fn tokens_and_logits_are_those_of_transformers() {
    let folder = fixtures().join("tiny-llama");
    let tensors = golden_tensors();
    let (config, _) = Config::read(&folder).unwrap();
    let text = std::fs::read_to_string(fixtures().join("text/calibration.txt")).unwrap();
    let cut = Tokens::encode(&folder, &text, config.vocab_size).unwrap().cut(16, 128, Selection::First, 0);
    let expected: Vec<Vec<i64>> = tensors["input_ids"].to_vec2().unwrap();
    let found: Vec<Vec<i64>> =
        cut.windows.iter().map(|window| window.iter().map(|&id| i64::from(id)).collect()).collect();
    assert_eq!(found, expected);

    let weights = std::sync::Arc::new(Weights::open(&folder).unwrap());
    let decoder = Decoder::load(&weights, &config, 128, in_memory(), &mut |_, _| Ok(())).unwrap();
    let window: &[u32] = &cut.windows[0];
    let batch = graspd::model::Batch { windows: 1, length: 128 };
    let hidden = decoder.forward(decoder.embed(&[window]).unwrap(), 0..8, batch).unwrap();
    let logits = decoder.head.logits(&hidden).unwrap().narrow(0, 120, 8).unwrap();
    let worst: f32 = (logits - &tensors["logits_first_window_last_8"])
        .unwrap()
        .abs()
        .unwrap()
        .flatten_all()
        .unwrap()
        .max(0)
        .unwrap()
        .to_scalar()
        .unwrap();
    assert!(worst < 1e-3, "logits differ by {worst}");

    let all: Vec<&[u32]> = cut.windows.iter().map(Vec::as_slice).collect();
    let batch = graspd::model::Batch { windows: 16, length: 128 };
    let hidden = decoder.forward(decoder.embed(&all).unwrap(), 0..8, batch).unwrap();
    let losses = decoder.head.losses(&hidden, &all, false).unwrap().tokens;
    assert_close("mean loss", losses.iter().sum::<f64>() / losses.len() as f64, &golden()["mean_loss"], 1e-4);
}

#[test]
fn one_shot_keeps_what_torch_keeps() {
    let golden = golden();
    let job = Job::new(&spec(&json!({"preset": "paper", "layers": 3, "retain_ratio": 0.3})));
    let report = job.run();
    for (found, expected) in report.layers.block_influence.iter().zip(golden["block_influence"].as_array().unwrap()) {
        assert!((found - expected.as_f64().unwrap()).abs() < 1e-4, "block influence {found}, torch {expected}");
    }
    assert_eq!(json!(report.layers.redundant), golden["layers_num_3"]);
    let share = kept_share(&report, &golden["one_shot"]["kept"]);
    assert!(share >= 0.99, "{share} of the kept indices agree");
    let (before, after, tokens) = scores(&report);
    assert_close("dense", before, &golden["perplexity"]["dense"], 0.005);
    assert_close("one shot", after, &golden["perplexity"]["one_shot"], 0.005);
    assert_eq!(json!(tokens), golden["perplexity"]["tokens"]);
    triplets_are_those_of_torch(&job.singular_values());
}

fn triplets_are_those_of_torch(found: &Value) {
    let tensors = golden_tensors();
    let vector = |name: String| tensors[&name].to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect::<Vec<_>>();
    for matrix in found["matrices"].as_array().unwrap() {
        let name = matrix["name"].as_str().unwrap();
        let of = |field: &str| serde_json::from_value::<Vec<f64>>(matrix[field].clone()).unwrap();
        let (sigma, expected) = (of("sigma"), vector(format!("{name}.sigma")));
        // σ: within 1e-5 of the largest; the golden values are stored in single precision.
        let worst = sigma.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(sigma.len() == expected.len() && worst < 1e-5 * expected[0], "{name}: σ differs by {worst}");
        // ∂L/∂σ: within 1e-3 of the vector's norm.
        let (gradient, expected) = (of("sigma_gradient"), vector(format!("{name}.sigma_grad")));
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let error = norm(&mut gradient.iter().zip(&expected).map(|(a, b)| a - b));
        let size = norm(&mut expected.iter().copied());
        assert!(error < 1e-3 * size, "{name}: ∂L/∂σ differs by {error} of {size}");
    }
}

#[test]
fn the_iterative_schedule_keeps_what_torch_keeps() {
    let golden = golden();
    let report =
        Job::new(&spec(&json!({"preset": "paper", "layers": 3, "retain_ratio": 0.3, "schedule": "iterative"}))).run();
    let share = kept_share(&report, &golden["iterative"]["kept"]);
    assert!(share >= 0.99, "{share} of the kept indices agree");
    assert_close("iterative", scores(&report).1, &golden["perplexity"]["iterative"], 0.005);
}

#[test]
fn magnitude_and_removal_score_as_in_torch() {
    let golden = golden();
    let report =
        Job::new(&spec(&json!({"preset": "paper", "layers": 3, "retain_ratio": 0.3, "score": "magnitude"}))).run();
    assert_close("magnitude", scores(&report).1, &golden["perplexity"]["magnitude"], 0.005);
    let report = Job::new(&spec(&json!({"layers": 3, "method": "remove"}))).run();
    assert_close("removed", scores(&report).1, &golden["perplexity"]["layers_removed"], 0.005);
}
