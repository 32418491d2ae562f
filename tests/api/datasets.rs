//! A user's own texts.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::{TestApp, code, header, sha256};

async fn upload(app: &TestApp, query: &str, kind: &str, text: impl Into<reqwest::Body>) -> Response {
    let request = app.request(Method::POST, &format!("/v1/datasets{query}")).header("content-type", kind);
    request.body(text).send().await.unwrap()
}

#[tokio::test]
async fn a_text_is_uploaded_used_and_deleted() {
    let app = TestApp::new().await;
    let response = upload(&app, "?name=my%20text", "text/plain; charset=utf-8", "some text\n").await;
    assert_eq!(response.status(), 201);
    let location = header(&response, "location").to_owned();
    let dataset: Value = response.json().await.unwrap();
    let id = dataset["id"].as_str().unwrap();
    assert_eq!(location, format!("/v1/datasets/{id}"));
    assert_eq!(
        (&dataset["name"], &dataset["bytes"], &dataset["format"]),
        (&json!("my text"), &json!(10), &json!("txt"))
    );
    assert_eq!(dataset["sha256"], sha256("some text\n"));
    assert_eq!(app.get(&location).await.json::<Value>().await.unwrap(), dataset);
    let list: Value = app.get("/v1/datasets").await.json().await.unwrap();
    assert_eq!(list["data"], json!([dataset]));
    let job = json!({"model": "a/b", "calibration": {"dataset": id}, "evaluation": {"perplexity": [id]}});
    assert_eq!(app.create_job(&job).await.status(), 202);
    let file = app.folder.path().join(format!("uploads/{id}.txt"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "some text\n");
    assert_eq!(app.delete(&location).await.status(), 204);
    assert!(!file.exists());
    for response in [app.get(&location).await, app.delete(&location).await, app.get("/v1/datasets/ds_1").await] {
        assert_eq!((response.status().as_u16(), code(response).await.as_str()), (404, "dataset_not_found"));
    }
    let refused: Value = app.create_job(&job).await.json().await.unwrap();
    assert_eq!((&refused["code"], &refused["field"]), (&json!("invalid_spec"), &json!("calibration.dataset")));
}

#[tokio::test]
async fn what_is_no_text_is_refused_and_leaves_nothing() {
    let app = TestApp::new().await;
    for (kind, text, status, expected) in [
        ("text/plain", b"".as_slice(), 422, "invalid_text"),
        ("text/plain", b"\xff\xfe", 422, "invalid_text"),
        ("application/jsonl", b"{\"text\": \"a\"}\n[1]\n", 422, "invalid_text"),
        ("application/json", b"{}", 415, "unsupported_media_type"),
        ("text/plain", &[b'x'; 10_001], 413, "dataset_too_large"),
    ] {
        let refused = upload(&app, "", kind, text.to_vec()).await;
        assert_eq!(refused.status(), status, "{kind}");
        assert_eq!(code(refused).await, expected, "{kind}");
    }
    let left = std::fs::read_dir(app.folder.path().join("uploads")).map_or(0, Iterator::count);
    assert_eq!(left, 0);
    assert_eq!(code(upload(&app, "?name=", "text/plain", "a").await).await, "invalid_query");
}

#[tokio::test]
async fn a_tenant_has_only_so_much_room() {
    let app = TestApp::new().await;
    assert_eq!(upload(&app, "", "text/plain", "x".repeat(10_000)).await.status(), 201);
    assert_eq!(upload(&app, "", "text/plain", "x".repeat(6_000)).await.status(), 413);
    assert_eq!(upload(&app, "", "application/x-ndjson", "{\"text\": \"x\"}\n").await.status(), 201);
}

#[tokio::test]
async fn an_upload_is_named_by_its_id_and_by_nothing_else() {
    let app = TestApp::new().await;
    let body = json!({"model": "a/b", "calibration": {"dataset": "file:.uploads/ds_x"}});
    assert_eq!(app.create_job(&body).await.status(), 422);
}
