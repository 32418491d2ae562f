//! The program as people start it: exit codes, signals, and what is left on disk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod worker;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The program, with everything it keeps in `folder` and nothing from the environment of the test.
fn graspd(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_graspd"));
    command.env_clear().current_dir(folder).args(arguments);
    command.env("GRASPD_MODELS_DIR", fixtures()).env("GRASPD_DATASETS_DIR", fixtures().join("text"));
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", folder);
    command
}

fn run(folder: &Path, arguments: &[&str]) -> (i32, Output) {
    let output = graspd(folder, arguments).output().unwrap();
    (output.status.code().unwrap(), output)
}

const JOB: [&str; 14] = [
    "compress",
    "--model",
    "file:tiny-llama",
    "--out",
    "out",
    "--calibration-dataset",
    "file:calibration",
    "--samples",
    "2",
    "--sequence-length",
    "32",
    "--layers",
    "3,",
    "--no-evaluation",
];

#[test]
fn compress_writes_a_checkpoint_and_never_over_one() {
    let folder = tempfile::tempdir().unwrap();
    let (code, output) = run(folder.path(), &[&JOB[..], &["--json"]].concat());
    assert_eq!(code, 0, "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["layers"]["redundant"], serde_json::json!([3]));
    assert!(folder.path().join("out/model.safetensors").exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing but the checkpoint stays");
    let (code, output) = run(folder.path(), &JOB);
    assert_eq!(code, 1);
    assert!(String::from_utf8(output.stderr).unwrap().contains("not empty"));
}

#[test]
fn a_job_that_cannot_be_done_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (code, output) = run(folder.path(), &["compress", "--model", "file:missing", "--out", "out"]);
    assert_eq!(code, 1);
    assert!(String::from_utf8(output.stderr).unwrap().contains("model_not_found"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_wrong_command_line_is_not_taken_for_a_cancelled_job() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(folder.path(), &["wait", "no-id"]).0, 3);
    assert_eq!(run(folder.path(), &["--help"]).0, 0);
    let (code, output) = run(folder.path(), &["serve", "--slots", "0"]);
    assert_eq!(code, 1);
    assert!(String::from_utf8(output.stderr).unwrap().contains("GRASPD_SLOTS"));
}

#[test]
fn openapi_prints_the_committed_description() {
    let folder = tempfile::tempdir().unwrap();
    let committed = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.yaml")).unwrap();
    assert!(run(folder.path(), &["openapi"]).1.stdout == committed);
}

/// A server on a port of its own; killed if the test ends before it.
struct Server {
    process: Child,
    listen: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        Self::run(folder, &["--listen", "127.0.0.1:0", "--rate-limit", "0"])
    }

    /// Runs a command that says in its log where it listens.
    fn run(folder: &Path, arguments: &[&str]) -> Self {
        let mut process =
            graspd(folder, &[arguments, &["--log", "json"]].concat()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let listening = lines.find_map(|line| address(&line.unwrap())).expect("the server says where it listens");
        // Read on, so that the server never meets a closed pipe.
        std::thread::spawn(move || lines.count());
        Self { process, listen: listening }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn address(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    line["address"].as_str().map(str::to_owned)
}

#[test]
fn a_server_is_healthy_until_it_is_told_to_stop_and_then_exits_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path());
    assert_eq!(run(folder.path(), &["healthcheck", "--listen", &server.listen]).0, 0);
    let unknown = "01890a5d-ac96-774b-bcce-b302099a8057";
    let url = format!("http://{}", server.listen);
    assert_eq!(run(folder.path(), &["wait", unknown, "--server", &url]).0, 3);
    kill_process(Pid::from_child(&server.process), Signal::TERM).unwrap();
    assert_eq!(server.process.wait().unwrap().code(), Some(0));
    assert_eq!(run(folder.path(), &["healthcheck", "--listen", &server.listen]).0, 1);
    assert!(folder.path().join("data/graspd.db").exists());
}

#[test]
fn a_server_beyond_loopback_wants_a_key_or_to_be_told() {
    let folder = tempfile::tempdir().unwrap();
    let (code, output) = run(folder.path(), &["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(code, 1);
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.contains("graspd keys create") && complaint.contains("--allow-anonymous"), "{complaint}");
}

#[test]
fn keys_are_made_listed_rotated_and_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let text = |output: Output| String::from_utf8(output.stdout).unwrap();
    let (code, output) = run(folder.path(), &["keys", "create", "--tenant", "ci", "--scope", "jobs:read"]);
    let key = text(output);
    assert!(code == 0 && key.starts_with("graspd_") && key.trim().len() == 50, "{key}");
    let list = text(run(folder.path(), &["keys", "list"]).1);
    assert!(list.contains("ci") && list.contains("valid") && !list.contains(key.trim()), "{list}");
    let id = list.split_whitespace().find(|word| word.starts_with("key_")).unwrap().to_owned();
    assert_eq!(run(folder.path(), &["keys", "rotate", &id]).0, 0);
    assert_eq!(run(folder.path(), &["keys", "revoke", &id]).0, 0);
    let list = text(run(folder.path(), &["keys", "list"]).1);
    assert!(list.contains("revoked") && list.contains("valid"), "{list}");
    assert_eq!(run(folder.path(), &["keys", "revoke", "key_none"]).0, 1);
}

/// A short job, as the API takes it.
const SPEC: &str = r#"{"model": "file:tiny-llama", "grasp": {"layers": [3]}, "evaluation": null,
    "calibration": {"dataset": "file:calibration", "samples": 2, "sequence_length": 32}}"#;

#[test]
fn jobs_are_submitted_followed_and_downloaded_with_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let key = String::from_utf8(run(folder.path(), &["keys", "create"]).1.stdout).unwrap().trim().to_owned();
    let server = Server::start(folder.path());
    let url = format!("http://{}", server.listen);
    let jobs = |arguments: &[&str]| {
        let all = [&["jobs", "--server", &url, "--key", &key][..], arguments].concat();
        let (code, output) = run(folder.path(), &all);
        (code, String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    fs::write(folder.path().join("job.json"), SPEC).unwrap();
    assert_eq!(run(folder.path(), &["jobs", "--server", &url, "list"]).0, 3, "without the key");
    let (code, id, trouble) = jobs(&["submit", "job.json", "--wait", "--idempotency-key", "once"]);
    assert_eq!(code, 0, "{trouble}");
    let id = id.trim();
    assert_eq!(jobs(&["submit", "job.json", "--idempotency-key", "once"]).1.trim(), id);
    assert!(jobs(&["list", "--status", "succeeded"]).1.contains(id));
    let job: Value = serde_json::from_str(&jobs(&["get", id]).1).unwrap();
    assert_eq!(job["status"], "succeeded");
    assert!(jobs(&["logs", id, "--follow"]).1.contains("worker process ends"));
    assert_eq!(jobs(&["download", id, "--out", "out"]).0, 0);
    assert!(folder.path().join("out/model.safetensors").exists());
    assert_eq!(jobs(&["cancel", id]).0, 3, "it has ended");
}
