//! For operators: health, metrics, version, request ids.

use std::{future::pending, sync::Arc};

use graspd::{
    http::{ProbeState, probes, server},
    queue::Store,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{METRICS, TestApp, code, header};

#[tokio::test]
async fn a_healthy_server_is_alive_and_ready() {
    let app = TestApp::new().await;
    assert_eq!(app.get("/livez").await.status(), 200);
    assert_eq!(app.get("/readyz").await.status(), 200);
    let version: Value = app.get("/version").await.json().await.unwrap();
    assert_eq!(version, json!({"name": "graspd", "version": env!("CARGO_PKG_VERSION")}));
}

#[tokio::test]
async fn a_server_that_stops_takes_no_new_jobs_and_still_shows_old_ones() {
    let app = TestApp::new().await;
    let id = app.queued().await;
    app.draining.start();
    let ready = app.get("/readyz").await;
    assert_eq!((ready.status().as_u16(), code(ready).await.as_str()), (503, "draining"));
    let refused = app.create_job(&json!({"model": "org/name"})).await;
    assert_eq!((refused.status().as_u16(), header(&refused, "retry-after")), (503, "5"));
    assert_eq!(code(refused).await, "draining");
    assert_eq!(app.get_job(&id).await.status(), 200);
    assert_eq!(app.get("/livez").await.status(), 200);
}

#[tokio::test]
async fn a_server_without_its_store_is_alive_but_not_ready() {
    let app = TestApp::new().await;
    let id = app.queued().await;
    app.database.close().await;
    for response in [app.get("/readyz").await, app.get_job(&id).await, app.list_jobs("").await] {
        assert_eq!(response.status(), 503);
        let text = response.text().await.unwrap();
        assert!(text.contains("store_unavailable") && !text.contains("closed"), "{text}");
    }
    assert_eq!(app.get("/livez").await.status(), 200);
    assert!(app.get("/metrics").await.text().await.unwrap().contains("graspd_store_up"));
}

#[tokio::test]
async fn metrics_count_jobs_and_requests_by_route() {
    let app = TestApp::new().await;
    app.get_job(&app.queued().await).await;
    app.get("/no/such/path").await;
    let response = app.get("/metrics").await;
    assert_eq!(header(&response, "content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().await.unwrap();
    assert!(text.contains("graspd_jobs{status=\"queued\"}"), "{text}");
    let request = "graspd_http_request_duration_seconds_bucket{path=\"/v1/jobs/{id}\",method=\"GET\",status=\"200\"";
    assert!(text.contains(request), "{text}");
    assert!(text.contains("path=\"unmatched\"") && !text.contains("/no/such/path"), "{text}");
}

#[tokio::test]
async fn a_worker_answers_its_operators_until_its_jobs_have_stopped() {
    let app = TestApp::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let state = ProbeState { store: Arc::clone(&app.store), metrics: METRICS.clone(), draining: app.draining.clone() };
    tokio::spawn(server::serve(listener, probes(state), pending()));
    let get = async |path: &str| app.http.get(format!("{url}{path}")).send().await.unwrap();
    assert_eq!(get("/readyz").await.status(), 200);
    let metrics = get("/metrics").await;
    assert_eq!(header(&metrics, "content-type"), "text/plain; version=0.0.4; charset=utf-8");
    app.draining.start();
    let ready = get("/readyz").await;
    assert_eq!((ready.status().as_u16(), code(ready).await.as_str()), (503, "draining"));
    app.database.close().await;
    let text = get("/metrics").await.text().await.unwrap();
    assert!(text.contains("graspd_store_up"), "{text}");
    assert_eq!(get("/livez").await.status(), 200);
    assert_eq!(get("/v1/jobs").await.status(), 404);
}

#[tokio::test]
async fn every_reply_tells_browsers_to_keep_away() {
    let app = TestApp::new().await;
    for path in ["/nowhere", "/livez", "/v1/jobs", "/", "/openapi.yaml"] {
        let response = app.get(path).await;
        assert_eq!(header(&response, "x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header(&response, "referrer-policy"), "no-referrer", "{path}");
        assert!(header(&response, "content-security-policy").contains("default-src 'none'"), "{path}");
        assert_eq!(header(&response, "access-control-allow-origin"), "", "{path}");
    }
}

#[tokio::test]
async fn every_reply_carries_a_request_id() {
    let app = TestApp::new().await;
    let made = header(&app.get("/nowhere").await, "x-request-id").to_owned();
    assert_eq!(made.len(), 36, "{made}");
    for (sent, kept) in [("trace-7.a_b", true), ("with space", false), (&"x".repeat(129), false), ("a\"b", false)] {
        let request = app.http.get(format!("{}/livez", app.url)).header("x-request-id", sent);
        let response = request.send().await.unwrap();
        let id = header(&response, "x-request-id");
        assert_eq!(id == sent, kept, "{sent}");
        assert!(!id.is_empty());
    }
}
