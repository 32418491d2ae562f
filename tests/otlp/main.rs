//! A build with the feature `otlp`: what a collector is told of a job.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, helpers included")]

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use axum::{Router, body::Bytes, http::HeaderMap, routing::post};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// The bodies that came, protobuf as it is.
type Received = Arc<Mutex<Vec<Bytes>>>;

/// A collector on a free port.
async fn collector() -> (String, Received) {
    let received = Received::default();
    let kept = Arc::clone(&received);
    let take = async move |headers: HeaderMap, body: Bytes| {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        kept.lock().unwrap().push(body);
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/traces", post(take));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, received)
}

/// A server with the fixtures' models, and its address.
fn serve(data: &Path, collector: &str) -> (Child, String) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut server = Command::new(env!("CARGO_BIN_EXE_graspd"))
        .args(["serve", "--listen", "127.0.0.1:0", "--log", "json", "--hf-hub-offline"])
        .arg("--data-dir")
        .arg(data)
        .arg("--models-dir")
        .arg(&fixtures)
        .arg("--datasets-dir")
        .arg(fixtures.join("text"))
        .args(["--otlp-endpoint", collector])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let address = lines.by_ref().find_map(|line| {
        let line: Value = serde_json::from_str(&line.unwrap()).ok()?;
        Some(format!("http://{}", line["address"].as_str()?))
    });
    // Somebody must go on reading, or the server stands still when the pipe is full.
    thread::spawn(move || lines.count());
    (server, address.unwrap())
}

fn has(bodies: &[Bytes], needle: &[u8]) -> bool {
    bodies.iter().any(|body| body.windows(needle.len()).any(|part| part == needle))
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap();
    (0..hexadecimal.len()).step_by(2).map(pair).collect()
}

#[tokio::test]
async fn a_job_is_one_trace_from_the_request_to_the_worker_process() {
    let (url, received) = collector().await;
    let data = tempfile::tempdir().unwrap();
    let (mut server, address) = serve(data.path(), &url);
    let body = json!({
        "model": "file:tiny-llama",
        "calibration": {"dataset": "file:calibration", "selection": "first", "samples": 2, "sequence_length": 32},
        "grasp": {"preset": "paper", "layers": [3], "retain_ratio": 0.3},
        "evaluation": null
    });
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(format!("{address}/v1/jobs")).header("prefer", "wait=60").json(&body);
    let response = request.header("traceparent", format!("00-{TRACE}-{PARENT}-01")).send().await.unwrap();
    let job: Value = response.json().await.unwrap();
    assert_eq!(job["status"], "succeeded", "{job}");
    kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
    assert!(tokio::task::spawn_blocking(move || server.wait().unwrap().success()).await.unwrap());
    let bodies = received.lock().unwrap().clone();
    for name in ["http.request", "attempt"] {
        // The worker process sends its own span itself, so each span comes with the trace in the same body.
        let with_name: Vec<Bytes> =
            bodies.iter().filter(|body| has(&[(*body).clone()], name.as_bytes())).cloned().collect();
        assert!(has(&with_name, &bytes(TRACE)), "{name}");
    }
    let of_worker: Vec<Bytes> =
        bodies.iter().filter(|body| has(&[(*body).clone()], b"the worker process ends")).cloned().collect();
    assert!(has(&of_worker, &bytes(TRACE)) && !has(&of_worker, &bytes(PARENT)), "it is a child of the attempt's span");
    assert!(has(&bodies, &bytes(PARENT)), "the request is a child of the caller's span");
    assert!(has(&bodies, b"graspd"), "the service has a name");
}
