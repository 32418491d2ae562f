//! Telling a URL what happened to a job.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use graspd::{
    clock::SystemClock,
    http::{Settings, webhook},
    queue::{Outcome, WebhookStore},
};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
};

use crate::{LEASE, SETTINGS, TestApp};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[derive(Clone, Default)]
struct Receiver {
    seen: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    came: Arc<Notify>,
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    receiver.seen.lock().unwrap().push((headers, body));
    receiver.came.notify_one();
    StatusCode::NO_CONTENT
}

async fn receiver() -> (Receiver, String) {
    let receiver = Receiver::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let router = Router::new().route("/hook", post(receive)).with_state(receiver.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (receiver, url)
}

fn sender(app: &TestApp, private_addresses: bool) -> watch::Sender<bool> {
    let (stop, stopping) = watch::channel(false);
    let settings = webhook::Settings { secrets: vec![SECRET.parse().unwrap()], private_addresses };
    tokio::spawn(webhook::run(settings, Arc::new(app.database.clone()), Arc::new(SystemClock), stopping));
    stop
}

#[tokio::test]
async fn a_start_and_an_end_are_told_once_each_and_signed() {
    let app = TestApp::new().await;
    let (receiver, url) = receiver().await;
    app.create_job(&json!({"model": "org/name", "webhook_url": url})).await;
    let claim = app.store.claim("worker", LEASE).await.unwrap().unwrap();
    app.store.settle(&claim, &Outcome::Succeeded).await.unwrap();
    let _stop = sender(&app, true);
    while receiver.seen.lock().unwrap().len() < 2 {
        receiver.came.notified().await;
    }
    let seen = receiver.seen.lock().unwrap().clone();
    let kinds: Vec<Value> = seen.iter().map(|(_, body)| serde_json::from_slice::<Value>(body).unwrap()).collect();
    assert_eq!((&kinds[0]["type"], &kinds[1]["type"]), (&json!("job.started"), &json!("job.succeeded")));
    assert_eq!(kinds[1]["data"]["id"], claim.id.to_string());
    for (headers, body) in &seen {
        let field = |name: &str| headers.get(name).unwrap().to_str().unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&BASE64.decode(&SECRET[6..]).unwrap()).unwrap();
        mac.update(format!("{}.{}.", field("webhook-id"), field("webhook-timestamp")).as_bytes());
        mac.update(body);
        assert_eq!(field("webhook-signature"), format!("v1,{}", BASE64.encode(mac.finalize().into_bytes())));
    }
    assert_ne!(seen[0].0["webhook-id"], seen[1].0["webhook-id"]);
    assert_eq!(app.database.due_delivery(LEASE).await.unwrap(), None);
}

#[tokio::test]
async fn this_machine_is_never_called() {
    let app = TestApp::new().await;
    let (receiver, url) = receiver().await;
    let by_name = url.replace("127.0.0.1", "localhost");
    for url in [&url, &by_name] {
        app.create_job(&json!({"model": "org/name", "webhook_url": url})).await;
        app.store.claim("worker", LEASE).await.unwrap().unwrap();
    }
    let _stop = sender(&app, false);
    // Both are tried and put off.
    let mut changes = app.store.changes();
    for _ in 0..4 {
        changes.changed().await.unwrap();
        changes.borrow_and_update();
        if app.database.due_delivery(std::time::Duration::ZERO).await.unwrap().is_none() {
            break;
        }
    }
    assert_eq!(receiver.seen.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_service_that_sends_none_refuses_jobs_that_name_one() {
    let app = TestApp::with_settings(Settings { webhooks: false, ..SETTINGS }).await;
    let refused: Value =
        app.create_job(&json!({"model": "org/name", "webhook_url": "https://example.org"})).await.json().await.unwrap();
    assert_eq!((&refused["code"], &refused["field"]), (&json!("invalid_spec"), &json!("webhook_url")));
    let odd = TestApp::new().await;
    for url in ["ftp://example.org", "https://user:password@example.org", "https://", "example.org", "https://a b"] {
        let refused = odd.create_job(&json!({"model": "org/name", "webhook_url": url})).await;
        assert_eq!(refused.status(), 422, "{url}");
    }
}
