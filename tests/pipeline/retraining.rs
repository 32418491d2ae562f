//! Training of a checkpoint that is there already: without compressing it again, and from another job's folder.

use std::fs;

use graspd::job::{FailureCode, JobId, ModelSource};
use serde_json::{Value, json};

use super::{
    recovery::{compressed, short, spec, weights},
    support::{Job, Watcher},
};

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// A job that only trains what `before` has published.
fn further(before: &Job, recovery: &Value) -> Job {
    let mut body = spec(&Value::Null, recovery);
    body.as_object_mut().unwrap().remove("calibration");
    let mut job = Job::new(&body);
    before.folder.path().clone_into(&mut job.models_dir);
    job.spec.model = "file:output".parse().unwrap();
    job
}

#[test]
fn a_factored_checkpoint_is_trained_as_in_one_go() {
    for method in ["full", "lora"] {
        let at_once = Job::new(&spec(&compressed(), &short(method)));
        let expected = at_once.run();
        let first = Job::new(&spec(&compressed(), &Value::Null));
        first.run();
        let second = further(&first, &short(method));
        let report = second.run();
        assert!(weights(&second, "") == weights(&at_once, ""), "{method}: the same bytes");
        let (one, other) = (expected.recovery.unwrap(), report.recovery.unwrap());
        assert_eq!((&one.curve, &one.validation), (&other.curve, &other.validation));
        assert_eq!((report.layers.redundant.as_slice(), report.matrices.len()), ([2, 3].as_slice(), 0));
        assert_eq!((report.parameters.before, report.removed.all), (report.parameters.after, 0.0));
        let scores = |report: &graspd::job::EvaluationReport| report.perplexity["file:evaluation"].clone();
        let (before, after) = (scores(&expected.evaluation.unwrap()), scores(&report.evaluation.unwrap()));
        assert_eq!((after.before, after.after, after.recovered), (None, before.after, before.recovered));
        assert!(fs::read_to_string(second.output().join("README.md")).unwrap().contains("training went on"));
    }
}

#[test]
fn what_is_kept_back_is_scored_in_every_state_of_the_model() {
    let found = Job::new(&spec(&compressed(), &short("lora"))).run().recovery.unwrap();
    let losses = found.held_out.unwrap();
    assert!(losses.before.unwrap() < losses.recovered && losses.recovered < losses.after, "{losses:?}");
    let best = found.validation.iter().map(|point| point.loss).fold(f64::INFINITY, f64::min);
    // Adapters are merged and rounded to bf16 after the last validation.
    assert!((losses.recovered - best).abs() < 0.01 && losses.tokens > 100, "{losses:?}, {best}");
}

#[test]
fn what_a_job_has_published_is_a_model() {
    let first = Job::new(&spec(&compressed(), &Value::Null));
    let score = Some(first.run().evaluation.unwrap().perplexity["file:evaluation"].after);
    let published = first.folder.path().join("published");
    fs::create_dir(&published).unwrap();
    fs::rename(first.output(), published.join(ID)).unwrap();
    let named = |job: Job, id: &str| Job {
        models_dir: first.folder.path().to_owned(),
        spec: graspd::job::JobSpec { model: ModelSource::Job(id.parse::<JobId>().unwrap()), ..job.spec.clone() },
        ..job
    };
    let evaluation = json!({"model": "file:x", "kind": "evaluate",
        "evaluation": {"perplexity": ["file:evaluation"], "window": 128, "limit": 8}});
    let report = named(Job::new(&evaluation), ID).run();
    assert_eq!(Some(report.evaluation.unwrap().perplexity["file:evaluation"].after), score);
    assert_eq!(report.model.source, format!("job:{ID}"));
    let report = named(Job::new(&spec(&json!({"layers": [1], "retain_ratio": 0.9}), &Value::Null)), ID).run();
    assert_eq!(report.evaluation.unwrap().perplexity["file:evaluation"].before, score);
    assert_eq!(named(further(&first, &short("full")), ID).run().layers.redundant, [2, 3]);
    let gone = named(Job::new(&evaluation), "01890a5d-ac96-774b-bcce-b302099a8058");
    let failure = gone.attempt(&Watcher::default()).unwrap_err().failure().unwrap();
    assert_eq!(failure.code, FailureCode::ModelNotFound);
    assert!(failure.message.starts_with("model: ") && failure.message.contains("deleted"), "{}", failure.message);
}

#[test]
fn a_model_without_factors_has_no_redundant_layers() {
    let mut job = further(&Job::new(&spec(&compressed(), &Value::Null)), &short("full"));
    job.models_dir = super::support::fixtures();
    job.spec.model = "file:tiny-llama".parse().unwrap();
    let failure = job.attempt(&Watcher::default()).unwrap_err().failure().unwrap();
    assert_eq!(failure.code, FailureCode::InvalidSpec);
    assert!(failure.message.starts_with("recovery.target: "), "{}", failure.message);
    job.spec.recovery.as_mut().unwrap().target = graspd::job::spec::RecoveryTarget::AllLayers;
    let found = job.run();
    assert_eq!(found.recovery.unwrap().layers.len(), 8);
    let scores = &found.evaluation.unwrap().perplexity["file:evaluation"];
    assert!((scores.recovered.unwrap() - scores.after).abs() > 1e-3, "{scores:?}");
    let card = fs::read_to_string(job.output().join("README.md")).unwrap();
    assert!(!card.contains("trust_remote_code"), "{card}");
}
