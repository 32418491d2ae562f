use graspd::http::client::{Client, ClientError};
use reqwest::Method;
use serde_json::{Value, json};

use super::app::{TestApp, problem};

#[tokio::test]
async fn probes_metrics_and_version_answer() {
    let app = TestApp::start().await;
    app.submit().await;
    assert_eq!(app.get("/livez").await.text().await.unwrap(), "ok\n");
    assert_eq!(app.get("/readyz").await.status(), 200);
    let metrics = app.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("graspd_jobs{status=\"queued\"} 1") && metrics.contains("graspd_jobs{status=\"failed\"} 0"), "{metrics}");
    assert_eq!(app.get("/version").await.json::<Value>().await.unwrap()["name"], "graspd");
}

#[tokio::test]
async fn a_stopping_service_takes_nothing_new_but_goes_on_answering() {
    let app = TestApp::start().await;
    let id = app.submit().await;
    app.draining.send_replace(true);
    assert_eq!(problem(app.get("/readyz").await).await.1, "draining");
    let response = app.post_job(&json!({"model": "a/b"})).await;
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(problem(response).await, (503, "draining".into(), None));
    assert_eq!(app.get("/livez").await.status(), 200);
    assert_eq!(app.job(id).await["status"], "queued");
}

#[tokio::test]
async fn a_queue_that_is_gone_is_not_ready() {
    let app = TestApp::start().await;
    app.store.close().await;
    assert_eq!(problem(app.get("/readyz").await).await.1, "store_unavailable");
    assert_eq!(problem(app.post_job(&json!({"model": "a/b"})).await).await.1, "store_unavailable");
    assert_eq!(app.get("/livez").await.status(), 200);
}

#[tokio::test]
async fn every_reply_names_its_request() {
    let app = TestApp::start().await;
    let made = app.get("/livez").await.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(made.len(), 36);
    let response = app.request(Method::GET, "/nowhere").header("x-request-id", "mine-7").send().await.unwrap();
    assert_eq!(response.headers()["x-request-id"], "mine-7");
    assert_eq!(problem(response).await, (404, "not_found".into(), None));
    let response = app.request(Method::DELETE, "/v1/jobs").send().await.unwrap();
    assert_eq!(response.headers()["allow"], "GET,HEAD,POST");
    assert_eq!(problem(response).await, (405, "method_not_allowed".into(), None));
}

#[tokio::test]
async fn the_client_speaks_the_api() {
    let app = TestApp::start().await;
    let client = Client::new(&app.address).unwrap();
    let submitted = client.submit(&json!({"model": "a/b"})).await.unwrap();
    assert_eq!(client.job(&submitted.id).await.unwrap().id, submitted.id);
    app.cancel(submitted.id.parse().unwrap()).await;
    let id = app.succeeded().await.to_string();
    let files = client.artifacts(&id).await.unwrap();
    let path = app.data_dir().join("downloaded");
    client.download(&files[2], &path).await.unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "0123456789");
    let ClientError::Problem(problem) = client.submit(&json!({})).await.unwrap_err() else { panic!("a problem is expected") };
    assert_eq!(problem.field.as_deref(), Some("model"));
    assert!(Client::new("http://127.0.0.1:1").unwrap().job("x").await.unwrap_err().is_passing());
}
