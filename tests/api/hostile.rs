//! Whatever is sent, the answer is the client's fault and never the server's.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{TestApp, code};

#[tokio::test]
async fn a_thousand_random_bodies_are_no_fault_of_the_server() {
    let app = TestApp::new().await;
    let mut random = StdRng::seed_from_u64(42);
    for round in 0..1000 {
        let body = match round % 3 {
            0 => random_bytes(&mut random),
            1 => mutated(&mut random),
            _ => random_value(&mut random, 0).to_string().into_bytes(),
        };
        let shown = String::from_utf8_lossy(&body).into_owned();
        let status = app.create_job_from_text(body).await.status().as_u16();
        assert!(matches!(status, 202 | 400 | 422), "{status}: {shown}");
    }
}

fn random_bytes(random: &mut StdRng) -> Vec<u8> {
    (0..random.random_range(0..200)).map(|_| random.random()).collect()
}

/// A valid body with a few bytes changed.
fn mutated(random: &mut StdRng) -> Vec<u8> {
    let valid = json!({
        "model": "org/name@main",
        "calibration": {"samples": 4, "sequence_length": 64, "seed": 1},
        "grasp": {"layers": [1, 2], "retain_ratio": 0.25},
        "evaluation": {"perplexity": ["wikitext2"], "limit": 3},
        "metadata": {"k": "v"},
    });
    let mut bytes = valid.to_string().into_bytes();
    for _ in 0..random.random_range(1..4) {
        let place = random.random_range(0..bytes.len());
        bytes[place] = *b"{}[]\",:019-.eE \\ntu\0\xff".get(random.random_range(0..22)).unwrap_or(&b'x');
    }
    bytes
}

/// JSON with the fields of a job and values of any type.
fn random_value(random: &mut StdRng, depth: usize) -> Value {
    const NAMES: [&str; 9] =
        ["model", "calibration", "grasp", "evaluation", "metadata", "layers", "retain_ratio", "samples", "perplexity"];
    match random.random_range(0..if depth > 3 { 6 } else { 9 }) {
        0 => Value::Null,
        1 => json!(random.random::<bool>()),
        2 => json!(random.random::<i64>()),
        3 => json!(random.random::<f64>() * 1e300),
        4 => json!("file:tiny-llama"),
        5 => json!("\u{0}\u{1f980}../"),
        6 => (0..random.random_range(0..4)).map(|_| random_value(random, depth + 1)).collect(),
        _ => {
            let fields = (0..random.random_range(0..6)).map(|_| NAMES[random.random_range(0..NAMES.len())].to_owned());
            let fields: Vec<_> = fields.collect();
            fields.into_iter().map(|name| (name, random_value(random, depth + 1))).collect()
        }
    }
}

#[tokio::test]
async fn a_body_at_the_limit_is_read_and_one_over_it_is_not() {
    let app = TestApp::new().await;
    let valid = json!({"model": "org/name"}).to_string();
    let padded = |bytes: usize| format!("{valid}{}", " ".repeat(bytes - valid.len()));
    assert_eq!(app.create_job_from_text(padded(64 * 1024)).await.status(), 202);
    for bytes in [64 * 1024 + 1, 900_000] {
        let response = app.create_job_from_text(padded(bytes)).await;
        assert_eq!(response.status(), 413);
        assert_eq!(code(response).await, "body_too_large");
    }
}

#[tokio::test]
async fn json_nested_too_deep_is_malformed() {
    let app = TestApp::new().await;
    let response = app.create_job_from_text("[".repeat(30_000)).await;
    assert_eq!((response.status().as_u16(), code(response).await.as_str()), (400, "malformed_json"));
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_no_job() {
    let app = TestApp::new().await;
    let address = app.url.strip_prefix("http://").unwrap();
    let mut client = TcpStream::connect(address).await.unwrap();
    let head = "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n";
    client.write_all(format!("{head}{{\"model\": \"a/b\"}}").as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let mut reply = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(9), client.read_to_end(&mut reply)).await;
    assert!(read.is_ok(), "the connection is closed");
    assert!(!reply.starts_with(b"HTTP/1.1 202"));
    let list: Value = app.list_jobs("").await.json().await.unwrap();
    assert_eq!(list["data"], json!([]));
}
