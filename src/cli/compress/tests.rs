use clap::Parser;

use super::*;
use crate::job::spec::{Kind, Layers, Size};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    arguments: Arguments,
}

fn job(arguments: &[&str]) -> Result<JobSpec, ArgumentsError> {
    Command::parse_from(["compress", "--out", "x"].iter().chain(arguments)).arguments.job()
}

fn spec_file(body: &Value) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), body.to_string()).unwrap();
    file
}

#[test]
fn flags_make_a_job() {
    let spec =
        job(&["--model", "file:m", "--layers", "2,3,4", "--retain-ratio", "0.3", "--samples", "7", "--no-evaluation"]);
    let spec = spec.unwrap();
    assert_eq!(spec.grasp.layers, Layers::Explicit(vec![2, 3, 4]));
    assert_eq!(spec.grasp.size, Size::RetainRatio(0.3));
    assert_eq!((spec.calibration.samples, spec.evaluation), (7, None));
}

#[test]
fn one_number_of_layers_is_a_count_and_a_comma_makes_it_a_list() {
    let layers = |text| job(&["--model", "file:m", "--layers", text]).unwrap().grasp.layers;
    assert_eq!(layers("8"), Layers::Count(8));
    assert_eq!(layers("8,"), Layers::Explicit(vec![8]));
    assert_eq!(layers("[8, 9]"), Layers::Explicit(vec![8, 9]));
    assert_eq!(layers("all"), Layers::All);
    assert!(matches!(job(&["--model", "file:m", "--layers", "many"]), Err(ArgumentsError::Layers(_))));
}

#[test]
fn a_spec_file_alone_is_enough() {
    let file = spec_file(&json!({"model": "a/b", "grasp": {"layers": 3}}));
    let spec = job(&["--spec", file.path().to_str().unwrap()]).unwrap();
    assert_eq!(spec.grasp.layers, Layers::Count(3));
}

#[test]
fn flags_win_over_the_spec_file() {
    let file =
        spec_file(&json!({"model": "a/b", "grasp": {"target_compression": 0.2, "layers": 3}, "evaluation": null}));
    let spec =
        job(&["--spec", file.path().to_str().unwrap(), "--retain-ratio", "0.5", "--perplexity", "ptb,c4"]).unwrap();
    assert_eq!(spec.grasp.size, Size::RetainRatio(0.5));
    assert_eq!(spec.grasp.layers, Layers::Count(3));
    assert_eq!(spec.evaluation.unwrap().perplexity.len(), 2);
}

#[test]
fn any_flag_of_recovery_asks_for_it() {
    assert_eq!(job(&["--model", "file:m"]).unwrap().recovery, None);
    let recovery = job(&["--model", "file:m", "--max-steps", "9"]).unwrap().recovery.unwrap();
    assert_eq!((recovery.max_steps, recovery.rank), (Some(9), 256));
    let spec = job(&["--model", "file:m", "--no-grasp", "--recovery", "full", "--batch-size", "8"]).unwrap();
    assert_eq!((spec.kind, spec.recovery.unwrap().batch_size), (Kind::Recover, 8));
}

#[test]
fn a_wrong_value_is_named_by_its_field() {
    for (flag, value, field) in [
        ("--method", "prune", "grasp.method"),
        ("--retain-ratio", "NaN", "grasp.retain_ratio"),
        ("--samples", "0", "calibration.samples"),
        ("--perplexity", "nothing", "evaluation.perplexity[0]"),
        ("--learning-rate", "2", "recovery.learning_rate"),
        ("--rank", "0", "recovery.rank"),
    ] {
        let complaint = job(&["--model", "a/b", flag, value]).unwrap_err().to_string();
        assert!(complaint.starts_with(field), "{complaint}");
    }
    assert!(matches!(job(&[]), Err(ArgumentsError::NoModel)));
}
