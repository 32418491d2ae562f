//! Tasks whose answers the model writes, on the sample model in float32, over records of our own in tests/fixtures/tasks.
//! `tests/fixtures/golden/tiny-llama.generation.json` has the answers and scores of others: of coqa those of
//! lm-evaluation-harness 0.4.9.2 (hf backend, batch 1, its own tasks/coqa/utils.py over our file); of `LongBench` answers of
//! transformers 4.57 in the steps of `LongBench/pred.py`, scored by `LongBench/eval.py` (commit 2e00731, rouge 1.0.1, fuzzywuzzy
//! 0.18.0). The longest prompts of coqa and hotpotqa do not fit the model's 1,024 tokens.

use std::fs;

use graspd::job::{AverageScores, EvaluationReport, FailureCode};
use serde_json::{Value, json};

use super::support::{Job, Watcher, fixtures};

const TASKS: [&str; 5] = ["coqa", "longbench_hotpotqa", "longbench_samsum", "longbench_trec", "longbench_lcc"];

fn golden() -> Value {
    let text = fs::read_to_string(fixtures().join("golden/tiny-llama.generation.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn evaluation(tasks: &[&str]) -> Job {
    let mut job = Job::new(&json!({
        "kind": "evaluate",
        "model": "file:tiny-llama",
        "evaluation": {"perplexity": [], "tasks": tasks, "inference": false},
    }));
    job.datasets_dir = fixtures().join("tasks");
    job
}

/// What a model wrote; each answer stands behind its hash.
fn answers(job: &Job, model: &str, task: &str) -> Vec<String> {
    let lines = fs::read_to_string(job.folder.path().join(format!("work/{model}-{task}.jsonl"))).unwrap();
    let answer = |line: &str| serde_json::from_str(line.split_once(' ').unwrap().1).unwrap();
    lines.lines().skip(1).map(answer).collect()
}

#[test]
fn answers_and_scores_are_those_of_lm_eval_and_longbench() {
    let (job, golden) = (evaluation(&TASKS), golden());
    let report = job.run().evaluation.unwrap();
    for task in TASKS {
        let expected = &golden[task];
        let texts: Vec<String> = serde_json::from_value(expected["answers"].clone()).unwrap();
        assert_eq!(answers(&job, "dense", task), texts, "{task}");
        let found = json!(report.generation[task].after);
        for (metric, value) in expected.as_object().unwrap().iter().filter(|(name, _)| *name != "answers") {
            let (ours, theirs) = (found[metric].as_f64().unwrap(), value.as_f64().unwrap());
            assert!((ours - theirs).abs() < 1e-12, "{task} {metric}: {ours}, expected {theirs}");
        }
        assert_eq!(report.generation[task].documents, texts.len());
    }
    assert_eq!((report.generation["coqa"].max_new_tokens, report.average), (256, None));
    assert!(report.generation["coqa"].protocol.contains("lm-evaluation-harness 0.4.9, validation split"));
    assert!(report.generation["longbench_trec"].protocol.contains("LongBench"));
}

#[test]
fn a_factored_model_writes_too_beside_the_source() {
    let mut job = Job::new(&json!({
        "model": "file:tiny-llama",
        "calibration": {"dataset": "file:calibration", "selection": "first", "samples": 4, "sequence_length": 64},
        "grasp": {"layers": 3, "retain_ratio": 0.3},
        "evaluation": {"perplexity": [], "tasks": ["longbench_trec", "arc_easy"], "limit": 2, "inference": false},
    }));
    job.datasets_dir = job.folder.path().join("datasets");
    fs::create_dir_all(job.datasets_dir.join("longbench")).unwrap();
    fs::create_dir_all(job.datasets_dir.join("arc_easy")).unwrap();
    for (from, to) in [
        ("tasks/longbench/trec.jsonl", "longbench/trec.jsonl"),
        ("tasks/arc_easy/test.jsonl", "arc_easy/test.jsonl"),
        ("text/calibration.txt", "calibration.txt"),
    ] {
        fs::copy(fixtures().join(from), job.datasets_dir.join(to)).unwrap();
    }
    let EvaluationReport { generation, average, tasks, .. } = job.run().evaluation.unwrap();
    let report = &generation["longbench_trec"];
    assert_eq!(report.before.as_ref().unwrap().mean("accuracy"), golden()["longbench_trec"]["accuracy"].as_f64());
    assert!(report.after.mean("accuracy").is_some() && report.recovered.is_none());
    assert_ne!(answers(&job, "dense", "longbench_trec"), answers(&job, "compressed", "longbench_trec"));
    let alone = AverageScores::of(&[tasks["arc_easy"].after]);
    assert_eq!(average.map(|average| average.after), alone, "the average is of multiple choice alone");
}

#[test]
fn what_was_written_before_a_stop_is_not_written_again() {
    let (whole, stopped) = (evaluation(&["longbench_lcc", "coqa"]), evaluation(&["longbench_lcc", "coqa"]));
    let expected = whole.run().evaluation.unwrap();
    let found = stopped.run_in_pieces().evaluation.unwrap();
    assert_eq!(found.generation, expected.generation);
    assert_eq!(answers(&stopped, "dense", "coqa"), answers(&whole, "dense", "coqa"));
}

/// The memory that a job asks for where it is given next to none.
fn needed(tasks: &[&str]) -> u64 {
    let job = Job { memory_limit: 1, ..evaluation(tasks) };
    job.attempt(&Watcher::default()).unwrap_err().failure().unwrap().memory_needed.unwrap()
}

#[test]
fn answers_are_only_written_with_the_layers_in_memory() {
    let limit = needed(&["arc_easy"]);
    let run = |tasks: &[&str], memory_limit| Job { memory_limit, ..evaluation(tasks) }.attempt(&Watcher::default());
    assert_eq!(run(&["arc_easy"], limit).unwrap().residency, "streamed");
    let failure = run(&["longbench_lcc"], limit).unwrap_err().failure().unwrap();
    assert_eq!(failure.code, FailureCode::OutOfMemory);
    assert!(failure.message.contains("whose answers the model writes"), "{}", failure.message);
    assert_eq!(run(&["longbench_lcc"], needed(&["longbench_lcc"])).unwrap().residency, "resident");
}

#[test]
fn a_file_that_is_missing_is_named() {
    let message = evaluation(&["longbench_qmsum"]).attempt(&Watcher::default()).unwrap_err().to_string();
    assert!(message.contains("longbench/qmsum.jsonl") && message.contains("data.zip"), "{message}");
}
