//! The other end of the pipe: the real program as a child.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use graspd::{
    clock::{Ids, RandomIds},
    job::{FailureCode, JobSpec, Status},
    queue::{JobStore, Origin, Outcome, Submission},
};
use serde_json::{Value, json};

use crate::bench::Bench;

const GRASPD: &str = env!("CARGO_BIN_EXE_graspd");

/// A job of the sample model that runs for `samples` windows.
fn body(samples: usize) -> Value {
    json!({
        "model": "file:tiny-llama",
        "calibration": {"dataset": "file:calibration", "selection": "first", "samples": samples, "sequence_length": 64},
        "grasp": {"layers": [3], "retain_ratio": 0.3, "projections": ["q_proj"]},
        "evaluation": null,
    })
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

async fn bench() -> Bench {
    let mut bench = Bench::new("").await;
    bench.settings.program = GRASPD.into();
    bench.settings.arguments = vec!["run-job".into()];
    bench.settings.environment.0 = vec![
        ("GRASPD_MODELS_DIR".into(), Some(fixtures().into())),
        ("GRASPD_DATASETS_DIR".into(), Some(fixtures().join("text").into())),
        ("GRASPD_DATA_DIR".into(), bench.settings.work_dir.parent().map(Into::into)),
        ("HF_HUB_OFFLINE".into(), Some("1".into())),
    ];
    bench.start();
    bench
}

#[tokio::test]
async fn a_real_child_compresses_the_sample_model() {
    let bench = bench().await;
    let id = bench.submit_body(body(2)).await;
    let record = bench.until_over(id).await;
    assert_eq!(record.status, Status::Succeeded, "{:?} {}", record.error, bench.log(id));
    let names = bench.published(id).await.unwrap();
    for name in ["config.json", "model.safetensors", "report.json", "tokenizer.json"] {
        assert!(names.iter().any(|published| published == name), "{name} is not in {names:?}");
    }
}

#[tokio::test]
async fn a_real_child_says_why_it_cannot() {
    let bench = bench().await;
    let id = bench.submit_body(json!({"model": "file:missing"})).await;
    let record = bench.until_over(id).await;
    assert_eq!((record.attempt, record.error.unwrap().code), (1, FailureCode::ModelNotFound));
}

#[tokio::test]
async fn a_real_child_stops_when_it_is_told() {
    let mut bench = bench().await;
    let id = bench.submit_body(body(4000)).await;
    bench.until_at_work(id).await;
    bench.stop().await;
    assert_eq!(bench.settled(), [Outcome::Released]);
    assert_eq!(bench.record(id).await.status, Status::Queued);
}

#[tokio::test]
async fn a_real_child_pauses_and_says_which_request_it_came_with() {
    let bench = bench().await;
    let id = RandomIds.job_id();
    let origin = Origin { request_id: Some("request-7".into()), traceparent: None };
    let submission = Submission { origin, ..Submission::new(id, JobSpec::parse(&body(300)).unwrap()) };
    bench.store.enqueue(&submission).await.unwrap();
    bench.until_at_work(id).await;
    bench.store.pause(id).await.unwrap();
    let record = bench.until(id, |record| record.status == Status::Paused || record.status.is_terminal()).await;
    assert_eq!(record.status, Status::Paused, "{}", bench.log(id));
    assert!(bench.log(id).contains("request-7"), "{}", bench.log(id));
}

#[test]
fn a_child_without_its_parent_does_not_begin() {
    let child = run_job(Path::new("."), "1").output().unwrap();
    assert!(!child.status.success());
    assert!(String::from_utf8(child.stderr).unwrap().contains("gone"));
}

#[test]
fn a_child_dies_with_its_server() {
    let folder = tempfile::tempdir().unwrap();
    let spec = JobSpec::parse(&body(4000)).unwrap();
    std::fs::write(folder.path().join("spec.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
    let job = run_job(folder.path(), "$$");
    let arguments: Vec<_> = job.get_args().map(|argument| argument.to_str().unwrap()).collect();
    let mut server = Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("{GRASPD} {} & echo $!; wait", arguments.join(" ")))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let id = lines.next().unwrap().unwrap();
    assert!(lines.next().unwrap().unwrap().contains("type"), "the child is at work");
    server.kill().unwrap();
    server.wait().unwrap();
    // The pipe stays open here, so only the death of its parent can end the child.
    while is_running(&id) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn run_job(folder: &Path, parent: &str) -> Command {
    let mut command = Command::new(GRASPD);
    command.arg("run-job").arg("--work").arg(folder).arg("--output").arg(folder.join("output"));
    command
        .args(["--device", "cpu", "--parent", parent, "--job", "01890a5d-ac96-774b-bcce-b302099a8057"])
        .arg("--models-dir")
        .arg(fixtures());
    command.arg("--datasets-dir").arg(fixtures().join("text")).arg("--data-dir").arg(folder);
    command
}

/// Whether a process runs; one that nobody has waited for yet is over all the same.
fn is_running(id: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
