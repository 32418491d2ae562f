use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn parse(body: impl std::borrow::Borrow<Value>) -> Result<JobSpec, SpecError> {
    JobSpec::parse(body.borrow())
}

fn field_at_fault(body: &Value) -> String {
    parse(body).unwrap_err().field
}

#[test]
fn the_smallest_body_gets_what_loses_least() {
    let spec = parse(json!({"model": "org/name"})).unwrap();
    assert_eq!(spec.grasp.size, Size::TargetCompression(0.2));
    assert_eq!((spec.grasp.basis, spec.grasp.score), (Basis::TwoSided, Score::Energy));
    assert_eq!((spec.grasp.allocation, spec.grasp.layers), (Allocation::Global, Layers::All));
    assert_eq!(spec.grasp.refine, Refine::Sequential);
    assert_eq!(spec.calibration.samples, 128);
    assert_eq!(spec.evaluation.unwrap().window, 2048);
}

#[test]
fn the_paper_is_as_published() {
    let spec = parse(json!({"model": "org/name", "grasp": {"preset": "paper"}})).unwrap();
    assert_eq!(spec.grasp.size, Size::RetainRatio(0.1));
    assert_eq!((spec.grasp.basis, spec.grasp.score), (Basis::Plain, Score::Taylor));
    assert_eq!((spec.grasp.allocation, spec.grasp.layers), (Allocation::Uniform, Layers::Automatic));
    assert_eq!((spec.grasp.schedule, spec.grasp.refine), (Schedule::OneShot, Refine::None));
}

#[test]
fn what_the_body_says_wins_and_the_rest_gives_way() {
    let grasp = |grasp: Value| parse(json!({"model": "a/b", "grasp": grasp})).unwrap().grasp;
    let magnitude = grasp(json!({"score": "magnitude"}));
    assert_eq!((magnitude.basis, magnitude.allocation), (Basis::Plain, Allocation::Uniform));
    assert_eq!((magnitude.layers, magnitude.size), (Layers::Automatic, Size::RetainRatio(0.1)));
    let eight = grasp(json!({"layers": 8}));
    assert_eq!((eight.allocation, eight.size), (Allocation::Global, Size::RetainRatio(0.1)));
    assert_eq!(grasp(json!({"importance_threshold": 0.9})).allocation, Allocation::Uniform);
    assert_eq!(grasp(json!({"schedule": "iterative"})).basis, Basis::TwoSided);
    assert_eq!(grasp(json!({"refine": "none"})).refine, Refine::None);
    assert_eq!(grasp(json!({"importance_threshold": 0.9})).refine, Refine::Sequential);
    for other in [json!({"schedule": "iterative"}), json!({"basis": "whitened"}), json!({"score": "magnitude"})] {
        assert_eq!(grasp(other).refine, Refine::None);
    }
    assert_eq!(grasp(json!({"basis": "whitened"})).score, Score::Energy);
    assert_eq!(grasp(json!({"preset": "paper", "layers": "all"})).layers, Layers::All);
}

#[test]
fn settings_without_sense_together_are_refused_by_the_field() {
    for (grasp, field) in [
        (json!({"score": "fisher", "basis": "whitened"}), "grasp.score"),
        (json!({"allocation": "global", "score": "magnitude"}), "grasp.allocation"),
        (json!({"allocation": "global", "score": "gradient"}), "grasp.allocation"),
        (json!({"allocation": "global", "basis": "whitened"}), "grasp.allocation"),
        (json!({"allocation": "global", "schedule": "iterative"}), "grasp.allocation"),
        (json!({"allocation": "global", "importance_threshold": 0.9}), "grasp.importance_threshold"),
        (json!({"method": "remove", "importance_threshold": 0.9}), "grasp.importance_threshold"),
        (json!({"method": "remove", "layers": "all"}), "grasp.layers"),
        (json!({"method": "remove", "refine": "sequential"}), "grasp.refine"),
        (json!({"schedule": "iterative", "refine": "sequential"}), "grasp.refine"),
        (json!({"basis": "plain", "refine": "sequential"}), "grasp.refine"),
        (json!({"basis": "two_sided", "score": "taylor", "refine": "sequential"}), "grasp.refine"),
    ] {
        assert_eq!(field_at_fault(&json!({"model": "a/b", "grasp": grasp})), field, "{grasp}");
    }
}

#[test]
fn a_mix_of_texts_reads_back_as_itself() {
    let spec = parse(json!({"model": "a/b", "calibration": {"split": "validation", "datasets": [
        {"dataset": "wikitext2", "weight": 0.5}, {"dataset": "c4", "split": "train", "weight": 0.5}]}}));
    let spec = spec.unwrap();
    let splits: Vec<&str> = spec.calibration.parts.iter().map(|part| part.split.as_str()).collect();
    assert_eq!(splits, ["validation", "train"]);
    let text = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<JobSpec>(&text).unwrap(), spec);
}

#[test]
fn a_mix_of_one_text_is_that_text() {
    let one = |calibration: Value| parse(json!({"model": "a/b", "calibration": calibration})).unwrap();
    assert_eq!(one(json!({"datasets": [{"dataset": "c4", "weight": 2}]})), one(json!({"dataset": "c4"})));
}

#[test]
fn a_null_evaluation_means_none() {
    assert_eq!(parse(json!({"model": "org/name", "evaluation": null})).unwrap().evaluation, None);
}

#[test]
fn every_wrong_field_is_named() {
    let model = "org/name";
    for (body, field) in [
        (json!([]), "body"),
        (json!({}), "model"),
        (json!({"model": 3}), "model"),
        (json!({"model": "no-slash"}), "model"),
        (json!({"model": model, "colour": 1}), "colour"),
        (json!({"model": model, "grasp": {"ratio": 0.2}}), "grasp.ratio"),
        (json!({"model": model, "grasp": {"layers": "all of them"}}), "grasp.layers"),
        (json!({"model": model, "grasp": {"layers": []}}), "grasp.layers"),
        (json!({"model": model, "grasp": {"layers": [1, 1]}}), "grasp.layers"),
        (json!({"model": model, "grasp": {"layers": 0}}), "grasp.layers"),
        (json!({"model": model, "grasp": {"layers": -1}}), "grasp.layers"),
        (json!({"model": model, "grasp": {"retain_ratio": 0}}), "grasp.retain_ratio"),
        (json!({"model": model, "grasp": {"retain_ratio": 1.1}}), "grasp.retain_ratio"),
        (json!({"model": model, "grasp": {"target_compression": 1}}), "grasp.target_compression"),
        (
            json!({"model": model, "grasp": {"retain_ratio": 0.1, "target_compression": 0.2}}),
            "grasp.target_compression",
        ),
        (json!({"model": model, "grasp": {"score": "loudness"}}), "grasp.score"),
        (json!({"model": model, "grasp": {"projections": ["q_proj", "q_proj"]}}), "grasp.projections"),
        (json!({"model": model, "grasp": {"projections": ["x_proj"]}}), "grasp.projections[0]"),
        (json!({"model": model, "calibration": {"samples": 0}}), "calibration.samples"),
        (json!({"model": model, "calibration": {"sequence_length": 1}}), "calibration.sequence_length"),
        (json!({"model": model, "calibration": {"dataset": "file:../x"}}), "calibration.dataset"),
        (json!({"model": model, "calibration": {"split": "a/b"}}), "calibration.split"),
        (json!({"model": model, "calibration": {"datasets": []}}), "calibration.datasets"),
        (
            json!({"model": model, "calibration": {"dataset": "c4", "datasets": [{"dataset": "ptb"}]}}),
            "calibration.datasets",
        ),
        (
            json!({"model": model, "calibration": {"datasets": [{"dataset": "c4"}, {"dataset": "c4"}]}}),
            "calibration.datasets[1].dataset",
        ),
        (
            json!({"model": model, "calibration": {"datasets": [{"dataset": "c4", "weight": 0}]}}),
            "calibration.datasets[0].weight",
        ),
        (
            json!({"model": model, "calibration": {"samples": 1, "datasets": [{"dataset": "c4"}, {"dataset": "ptb"}]}}),
            "calibration.samples",
        ),
        (json!({"model": model, "evaluation": {"perplexity": ["wikitext2", "nope"]}}), "evaluation.perplexity[1]"),
        (json!({"model": model, "evaluation": {"window": 1}}), "evaluation.window"),
        (json!({"model": model, "export": {"formats": []}}), "export.formats"),
        (json!({"model": model, "export": {"formats": ["dense", "dense"]}}), "export.formats"),
        (json!({"model": model, "export": {"dtype": "int8"}}), "export.dtype"),
        (json!({"model": model, "export": {"max_shard_size": 0}}), "export.max_shard_size"),
        (json!({"model": model, "export": {"max_shard_size": "big"}}), "export.max_shard_size"),
        (json!({"model": model, "export": {"max_shard_size": 1.5}}), "export.max_shard_size"),
        (json!({"model": model, "metadata": {"k": 1}}), "metadata.k"),
        (json!({"model": "job:1"}), "model"),
        (json!({"model": model, "grasp": null}), "recovery"),
        (json!({"model": model, "kind": "recover"}), "recovery"),
        (json!({"model": model, "kind": "recover", "recovery": {}, "grasp": {"layers": 3}}), "grasp"),
        (json!({"model": model, "grasp": null, "recovery": {}, "calibration": {"samples": 3}}), "calibration"),
        (json!({"model": model, "grasp": null, "recovery": {"keep_unrecovered": true}}), "recovery.keep_unrecovered"),
        (json!({"model": model, "kind": "evaluate", "recovery": {}}), "recovery"),
    ] {
        assert_eq!(field_at_fault(&body), field, "{body}");
    }
}

#[test]
fn a_bare_ratio_is_explained() {
    let error = parse(json!({"model": "a/b", "grasp": {"ratio": 0.2}})).unwrap_err();
    assert!(error.message.contains("retain_ratio is the share kept"), "{}", error.message);
}

#[test]
fn without_grasp_a_job_only_trains_and_reads_back_as_that() {
    let body =
        json!({"model": "job:01890a5d-ac96-774b-bcce-b302099a8057", "grasp": null, "recovery": {"max_steps": 3}});
    let spec = parse(body.clone()).unwrap();
    assert_eq!(spec.kind, Kind::Recover);
    let text = serde_json::to_value(&spec).unwrap();
    assert_eq!((&text["grasp"], &text["kind"]), (&Value::Null, &json!("recover")));
    assert_eq!(parse(text).unwrap(), spec);
    let mut named = body;
    named["kind"] = json!("recover");
    assert_eq!(parse(named).unwrap(), spec);
}

proptest! {
    #[test]
    fn a_complete_spec_reads_back_as_itself(
        samples in 1_usize..65_536,
        share in 0.000_001_f64..1.0,
        layers in prop::collection::btree_set(0_usize..100, 1..9),
        seed: u64,
    ) {
        let layers: Vec<_> = layers.into_iter().collect();
        let spec = parse(json!({
            "model": "a/b@c",
            "calibration": {"samples": samples, "seed": seed},
            "grasp": {"layers": layers, "importance_threshold": share},
            "evaluation": null,
            "metadata": {"run": "7"},
        })).unwrap();
        let text = serde_json::to_string(&spec).unwrap();
        prop_assert_eq!(serde_json::from_str::<JobSpec>(&text).unwrap(), spec);
    }

    #[test]
    fn no_body_panics(text in "\\PC*") {
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            let _ = JobSpec::parse(&value);
        }
    }
}

#[test]
fn a_place_in_the_queue_has_a_range_and_a_size_a_unit() {
    let spec = parse(json!({"model": "a/b", "priority": -100, "min_memory": "40GiB"})).unwrap();
    assert_eq!((spec.priority, spec.min_memory), (-100, Some(40 << 30)));
    assert_eq!(parse(serde_json::to_value(&spec).unwrap()).unwrap(), spec);
    for (field, value) in [
        ("priority", json!(101)),
        ("priority", json!(-101)),
        ("priority", json!(0.5)),
        ("priority", json!("high")),
        ("min_memory", json!(0)),
        ("min_memory", json!("much")),
    ] {
        assert_eq!(field_at_fault(&json!({"model": "a/b", (field): value})), field, "{value}");
    }
}
