//! `graspd worker`, beside an API of its own.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::{SPEC, Server, run};

#[tokio::test]
async fn a_worker_tells_its_operators_how_its_jobs_went() {
    let folder = tempfile::tempdir().unwrap();
    let api = Server::run(folder.path(), &["serve", "--no-worker", "--listen", "127.0.0.1:0"]);
    let mut worker = Server::run(folder.path(), &["worker", "--metrics-listen", "127.0.0.1:0"]);
    let get = async |path: &str| reqwest::get(format!("http://{}{path}", worker.listen)).await.unwrap();
    assert_eq!((get("/livez").await.status().as_u16(), get("/readyz").await.status().as_u16()), (200, 200));
    let before = get("/metrics").await.text().await.unwrap();
    assert!(before.contains("graspd_store_up 1") && !before.contains("graspd_attempts_total{"), "{before}");
    fs::write(folder.path().join("job.json"), SPEC).unwrap();
    let url = format!("http://{}", api.listen);
    assert_eq!(run(folder.path(), &["jobs", "--server", &url, "submit", "job.json", "--wait"]).0, 0);
    let mut after = before;
    // The slot tidies up a moment after the job shows as over.
    while !after.contains("graspd_attempts_total{") || !after.contains("graspd_slots_busy 0") {
        after = get("/metrics").await.text().await.unwrap();
    }
    for line in [
        "graspd_attempts_total{outcome=\"succeeded\"} 1",
        "graspd_stage_seconds_count{stage=\"factorize\"} 1",
        "graspd_published_bytes_total",
    ] {
        assert!(after.contains(line), "{line} in\n{after}");
    }
    // The API alone counts what waits.
    assert!(!after.contains("graspd_jobs{"), "{after}");
    kill_process(Pid::from_child(&worker.process), Signal::TERM).unwrap();
    assert_eq!(worker.process.wait().unwrap().code(), Some(0));
}

#[test]
fn an_address_that_is_taken_is_named_by_its_setting() {
    let folder = tempfile::tempdir().unwrap();
    let api = Server::start(folder.path());
    let (code, output) = run(folder.path(), &["worker", "--metrics-listen", &api.listen]);
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(code == 1 && complaint.contains("GRASPD_METRICS_LISTEN, --metrics-listen"), "{complaint}");
}
