//! Tasks against lm-evaluation-harness 0.4.9.2 (hf backend, float32) on the sample model, over records of our own in
//! tests/fixtures/tasks: `lm_eval.simple_evaluate(num_fewshot=…, log_samples=True)` with lm-eval's own task files, their
//! data sets replaced by these files. Few-shot, that covers all three ways examples are drawn: from a train split beside
//! a test split (`arc_easy`), from one beside a validation split, where one more is drawn (`piqa`), and from the evaluated
//! split itself (`winogrande`).

use std::fs;

use serde_json::{Value, json};

use super::support::{Job, fixtures};

fn golden(num_fewshot: usize) -> Value {
    let text = fs::read_to_string(fixtures().join("golden/tiny-llama.lmeval.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()[num_fewshot.to_string()].clone()
}

fn evaluation(tasks: &[&str], num_fewshot: usize) -> Job {
    let mut job = Job::new(&json!({
        "kind": "evaluate",
        "model": "file:tiny-llama",
        "evaluation": {"perplexity": [], "tasks": tasks, "num_fewshot": num_fewshot, "inference": false},
    }));
    job.datasets_dir = fixtures().join("tasks");
    job
}

fn check_choices(num_fewshot: usize) {
    let tasks = ["arc_easy", "piqa", "winogrande"];
    let job = evaluation(&tasks, num_fewshot);
    let report = job.run().evaluation.unwrap();
    let golden = golden(num_fewshot);
    for task in tasks {
        let (found, expected) = (report.tasks[task].after, &golden[task]);
        assert!((found.acc - expected["acc"].as_f64().unwrap()).abs() < 1e-12, "{task}");
        let acc_norm = expected.get("acc_norm").and_then(Value::as_f64);
        assert_eq!(found.acc_norm.is_some(), acc_norm.is_some(), "{task}");
        assert!((found.acc_norm.unwrap_or(0.0) - acc_norm.unwrap_or(0.0)).abs() < 1e-12, "{task}");
        let answers = fs::read_to_string(job.folder.path().join(format!("work/dense-{task}.jsonl"))).unwrap();
        // Each stands behind its hash.
        let answer = |line: &str| serde_json::from_str(line.split_once(' ').unwrap().1).unwrap();
        let answers: Vec<Vec<f64>> = answers.lines().skip(1).map(answer).collect();
        let expected: Vec<Vec<f64>> = serde_json::from_value(expected["loglikelihoods"].clone()).unwrap();
        assert_eq!(answers.len(), expected.len(), "{task}");
        for (document, (ours, theirs)) in answers.iter().zip(&expected).enumerate() {
            assert_eq!(ours.len(), theirs.len(), "{task} {document}");
            let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst < 5e-4, "{num_fewshot} examples, {task} {document}: {ours:?}, lm-eval {theirs:?}");
        }
    }
}

#[test]
fn zero_shot_log_likelihoods_are_those_of_lm_eval() {
    check_choices(0);
}

#[test]
fn few_shot_log_likelihoods_are_those_of_lm_eval() {
    check_choices(2);
}

// The long page takes several windows of the model's 1,024 tokens.
#[test]
fn rolling_perplexities_are_those_of_lm_eval() {
    let report = evaluation(&["wikitext"], 0).run().evaluation.unwrap();
    let (found, expected) = (report.rolling["wikitext"].after, &golden(0)["wikitext"]);
    for (name, ours) in [
        ("word_perplexity", found.word_perplexity),
        ("byte_perplexity", found.byte_perplexity),
        ("bits_per_byte", found.bits_per_byte),
    ] {
        let theirs = expected[name].as_f64().unwrap();
        assert!((ours / theirs - 1.0).abs() < 1e-5, "{name}: {ours}, lm-eval {theirs}");
    }
    assert_eq!((report.rolling["wikitext"].documents, report.average), (3, None));
    assert!(report.rolling["wikitext"].protocol.contains("rolling windows"));
}

#[test]
fn an_evaluation_that_is_stopped_goes_on_at_the_batch_where_it_stood() {
    let records = fs::read_to_string(fixtures().join("tasks/arc_easy/test.jsonl")).unwrap();
    let numbered = |number: usize| records.replace("\"question\": \"", &format!("\"question\": \"Number {number}: "));
    let many: String = (0..16).map(numbered).collect();
    let new = || {
        let mut job = evaluation(&["arc_easy"], 0);
        job.datasets_dir = job.folder.path().join("tasks");
        fs::create_dir_all(job.datasets_dir.join("arc_easy")).unwrap();
        fs::write(job.datasets_dir.join("arc_easy/test.jsonl"), &many).unwrap();
        job
    };
    let (whole, stopped) = (new(), new());
    let expected = whole.run().evaluation.unwrap();
    let found = stopped.run_in_pieces().evaluation.unwrap();
    assert_eq!(found.tasks["arc_easy"].documents, 16 * records.lines().count());
    assert_eq!(found.tasks["arc_easy"].after, expected.tasks["arc_easy"].after);
    let answers = |job: &Job| fs::read_to_string(job.folder.path().join("work/dense-arc_easy.jsonl")).unwrap();
    assert_eq!(answers(&stopped), answers(&whole), "every document once, whatever stopped it");
}
