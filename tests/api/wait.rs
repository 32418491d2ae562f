//! Asking again only when there is something to say: entity tags, waits, and requests that are sent twice.

use std::time::Duration;

use graspd::{
    http::Settings,
    queue::{Outcome, QueueLimits},
};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::{SETTINGS, TestApp, code, header};

async fn submit(app: &TestApp, key: &str, body: &Value) -> Response {
    app.request(Method::POST, "/v1/jobs").header("idempotency-key", key).json(body).send().await.unwrap()
}

#[tokio::test]
async fn a_request_that_is_sent_again_makes_no_second_job() {
    let app = TestApp::new().await;
    let body = json!({"model": "org/name", "grasp": {"layers": 3}});
    let first = submit(&app, "run-7", &body).await;
    assert_eq!((first.status().as_u16(), header(&first, "idempotency-replayed")), (202, ""));
    let first: Value = first.json().await.unwrap();
    let again = submit(&app, "run-7", &json!({"grasp": {"layers": 3}, "model": "org/name"})).await;
    assert_eq!((again.status().as_u16(), header(&again, "idempotency-replayed")), (202, "true"));
    assert_eq!(again.json::<Value>().await.unwrap()["id"], first["id"]);
    let other = submit(&app, "run-7", &json!({"model": "org/other"})).await;
    assert_eq!((other.status().as_u16(), code(other).await.as_str()), (422, "idempotency_key_reused"));
    for key in ["", &"x".repeat(256), "é"] {
        let refused = submit(&app, key, &body).await;
        assert_eq!((refused.status().as_u16(), code(refused).await.as_str()), (400, "invalid_idempotency_key"));
    }
    let list: Value = app.list_jobs("").await.json().await.unwrap();
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_full_queue_asks_to_come_back_later() {
    let queue = QueueLimits { service: 2, tenant: 1 };
    let app = TestApp::with_settings(Settings { queue, ..SETTINGS }).await;
    app.queued().await;
    let full = app.create_job(&json!({"model": "org/name"})).await;
    assert_eq!((full.status().as_u16(), header(&full, "retry-after")), (429, "30"));
    assert_eq!(code(full).await, "queue_full");
    app.store.claim("worker", Duration::from_mins(1)).await.unwrap().unwrap();
    assert_eq!(app.create_job(&json!({"model": "org/name"})).await.status(), 202, "running jobs do not count");
}

#[tokio::test]
async fn a_job_that_has_not_changed_is_not_sent_again() {
    let app = TestApp::new().await;
    let id = app.queued().await;
    let path = format!("/v1/jobs/{id}");
    let tag = header(&app.get(&path).await, "etag").to_owned();
    let same = app.get_with(&path, "if-none-match", &tag).await;
    assert_eq!((same.status().as_u16(), header(&same, "etag")), (304, tag.as_str()));
    app.cancel_job(&id).await;
    let changed = app.get_with(&path, "if-none-match", &tag).await;
    assert_eq!(changed.status(), 200);
    assert_ne!(header(&changed, "etag"), tag);
}

#[tokio::test]
async fn a_wait_ends_as_soon_as_the_job_changes() {
    let app = TestApp::new().await;
    let claim = app.running().await;
    let path = format!("/v1/jobs/{}", claim.id);
    let settling = async {
        tokio::task::yield_now().await;
        app.store.settle(&claim, &Outcome::Succeeded).await.unwrap();
    };
    let (waited, ()) = tokio::join!(app.get_with(&path, "prefer", "wait=60"), settling);
    // The request may have come after the change: then it waits for the next one, which never comes. An entity tag
    // rules that out.
    assert_eq!(header(&waited, "preference-applied"), "wait=60");
    assert_eq!(waited.json::<Value>().await.unwrap()["status"], "succeeded");
}

#[tokio::test]
async fn a_submission_that_waits_is_answered_when_the_job_has_ended() {
    let app = TestApp::new().await;
    let request = app.request(Method::POST, "/v1/jobs").header("prefer", "wait=60").json(&json!({"model": "a/b"}));
    let working = async {
        let claim = loop {
            if let Some(claim) = app.store.claim("worker", Duration::from_mins(1)).await.unwrap() {
                break claim;
            }
            tokio::task::yield_now().await;
        };
        app.store.settle(&claim, &Outcome::Succeeded).await.unwrap();
    };
    let (response, ()) = tokio::join!(request.send(), working);
    let response = response.unwrap();
    assert_eq!((response.status().as_u16(), header(&response, "preference-applied")), (202, "wait=60"));
    assert_eq!(response.json::<Value>().await.unwrap()["status"], "succeeded");
}

#[tokio::test]
async fn a_server_that_stops_keeps_nobody_waiting() {
    let app = TestApp::new().await;
    let id = app.queued().await;
    let path = format!("/v1/jobs/{id}");
    let (waited, ()) = tokio::join!(app.get_with(&path, "prefer", "wait=60"), async { app.draining.start() });
    assert_eq!(waited.status(), 200);
}

#[tokio::test]
async fn sixty_four_equal_submissions_at_once_are_one_job() {
    let app = TestApp::new().await;
    let body = json!({"model": "org/name"});
    let posts =
        (0..64).map(|_| app.request(Method::POST, "/v1/jobs").header("idempotency-key", "one").json(&body).send());
    let mut ids = std::collections::BTreeSet::new();
    let mut first = 0;
    for response in futures_util::future::join_all(posts).await {
        let response = response.unwrap();
        assert_eq!(response.status(), 202);
        first += usize::from(header(&response, "idempotency-replayed").is_empty());
        ids.insert(response.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned());
    }
    assert_eq!((ids.len(), first), (1, 1));
    let list: Value = app.list_jobs("").await.json().await.unwrap();
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
}
