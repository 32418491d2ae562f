//! The command line's client against the real server.

use std::time::Duration;

use graspd::{
    http::client::{Client, ClientError},
    job::Status,
    queue::Outcome,
};
use serde_json::json;
use tempfile::TempDir;

use crate::{LEASE, TestApp, sha256};

#[tokio::test]
async fn a_client_follows_a_job_to_its_files() {
    let app = TestApp::new().await;
    let client = Client::new(&app.url).unwrap();
    client.ready().await.unwrap();
    assert_eq!(client.version().await.unwrap().name, "graspd");
    let job = client.submit(&json!({"model": "file:tiny-llama"})).await.unwrap();
    assert_eq!((job.status, job.spec.calibration.samples), (Status::Queued, 128));

    let claim = app.store.claim("test", LEASE).await.unwrap().unwrap();
    app.publish(claim.id, &[("sub/model.safetensors", "0123")]).await;
    app.store.settle(&claim, &Outcome::Succeeded).await.unwrap();
    let mut seen = Vec::new();
    let over = client.wait(job.id, Duration::from_millis(1), |job| seen.push(job.status)).await.unwrap();
    assert_eq!((over.status, seen.last()), (Status::Succeeded, Some(&Status::Succeeded)));

    let artifacts = client.artifacts(job.id).await.unwrap();
    let weights = artifacts.iter().find(|artifact| artifact.name == "sub/model.safetensors").unwrap();
    assert_eq!(weights.sha256, sha256("0123"));
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("model.safetensors");
    client.download(job.id, weights, &target).await.unwrap();
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "0123");
    let mut wrong = weights.clone();
    wrong.sha256 = sha256("other");
    let other = folder.path().join("other");
    assert!(matches!(client.download(job.id, &wrong, &other).await, Err(ClientError::Damaged { .. })));
    assert!(!other.exists(), "a damaged file never gets its name");
}

#[tokio::test]
async fn a_client_hands_problems_on() {
    let app = TestApp::new().await;
    let client = Client::new(&app.url).unwrap();
    let error = client.submit(&json!({"model": "org/name", "grasp": {"ratio": 1}})).await.unwrap_err();
    let ClientError::Problem(problem) = error else { panic!("{error}") };
    assert_eq!((problem.code.as_str(), problem.field.as_deref()), ("invalid_spec", Some("grasp.ratio")));
    let id = client.submit(&json!({"model": "org/name"})).await.unwrap().id;
    assert_eq!(client.cancel(id).await.unwrap().status, Status::Cancelled);
    let ClientError::Problem(problem) = client.cancel(id).await.unwrap_err() else { panic!("no problem") };
    assert_eq!(problem.code, "job_already_over");
    assert!(matches!(client.report(id).await, Err(ClientError::Problem(_))));
}

#[tokio::test]
async fn a_client_without_a_server_says_so() {
    assert!(matches!(Client::new("not a url"), Err(ClientError::InvalidUrl { .. })));
    assert!(matches!(Client::new("file:///etc"), Err(ClientError::InvalidUrl { .. })));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = Client::new(&url).unwrap().ready().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
}
