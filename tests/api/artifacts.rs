//! Reports and files.

use graspd::{
    job::{Failure, FailureCode},
    queue::Outcome,
};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::{TestApp, code, header, sha256};

const WEIGHTS: &str = "0123456789";
const REPORT: &str = r#"{"seed":42}"#;
const FILES: [(&str, &str); 3] =
    [("model.safetensors", WEIGHTS), ("report.json", REPORT), ("tokenizer/two words.json", "{}")];

async fn with_headers(app: &TestApp, method: Method, id: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = app.request(method, &format!("/v1/jobs/{id}/artifacts/model.safetensors"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn published_files_are_listed_and_their_urls_lead_to_them() {
    let app = TestApp::new().await;
    let id = app.succeeded(&FILES).await;
    let list: Value = app.list_artifacts(&id).await.json().await.unwrap();
    assert_eq!((&list["object"], &list["has_more"]), (&json!("list"), &json!(false)));
    let files = list["data"].as_array().unwrap();
    let names: Vec<_> = files.iter().map(|file| file["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["SHA256SUMS", "model.safetensors", "report.json", "tokenizer/two words.json"]);
    for file in files {
        let content = app.get(file["url"].as_str().unwrap()).await.text().await.unwrap();
        assert_eq!(file["bytes"], content.len());
        assert_eq!(file["sha256"], sha256(&content));
    }
}

#[tokio::test]
async fn a_file_arrives_with_what_curl_needs_to_save_it() {
    let app = TestApp::new().await;
    let id = app.succeeded(&FILES).await;
    let response = app.get_artifact(&id, "model.safetensors").await;
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "content-disposition"), "attachment; filename=\"model.safetensors\"");
    assert_eq!(header(&response, "content-type"), "application/octet-stream");
    assert_eq!(header(&response, "x-content-type-options"), "nosniff");
    assert_eq!(header(&response, "accept-ranges"), "bytes");
    assert_eq!(header(&response, "etag"), format!("\"{}\"", sha256(WEIGHTS)));
    assert_eq!(response.text().await.unwrap(), WEIGHTS);
}

#[tokio::test]
async fn a_slash_in_a_name_may_be_encoded_or_not() {
    let app = TestApp::new().await;
    let id = app.succeeded(&FILES).await;
    for name in ["tokenizer/two%20words.json", "tokenizer%2Ftwo%20words.json", "tokenizer%2ftwo%20words.json"] {
        let response = app.get_artifact(&id, name).await;
        assert_eq!(response.status(), 200, "{name}");
        let disposition = "attachment; filename=\"two_words.json\"; filename*=UTF-8''two%20words%2Ejson";
        assert_eq!(header(&response, "content-disposition"), disposition);
    }
}

#[tokio::test]
async fn a_head_gives_the_length_and_no_body() {
    let app = TestApp::new().await;
    let id = app.succeeded(&FILES).await;
    let response = with_headers(&app, Method::HEAD, &id, &[]).await;
    assert_eq!((response.status().as_u16(), header(&response, "content-length")), (200, "10"));
    assert_eq!(header(&response, "etag"), format!("\"{}\"", sha256(WEIGHTS)));
    assert_eq!(response.text().await.unwrap(), "");
}

#[tokio::test]
async fn a_broken_off_download_goes_on_where_it_stopped() {
    let app = TestApp::new().await;
    let id = app.succeeded(&FILES).await;
    let tag = format!("\"{}\"", sha256(WEIGHTS));
    for (range, content, content_range) in
        [("bytes=7-", "789", "bytes 7-9/10"), ("bytes=-2", "89", "bytes 8-9/10"), ("bytes=2-3", "23", "bytes 2-3/10")]
    {
        let response = with_headers(&app, Method::GET, &id, &[("range", range), ("if-range", &tag)]).await;
        assert_eq!((response.status().as_u16(), header(&response, "content-range")), (206, content_range));
        assert_eq!(response.text().await.unwrap(), content, "{range}");
    }
    let other = with_headers(&app, Method::GET, &id, &[("range", "bytes=7-"), ("if-range", "\"other\"")]).await;
    assert_eq!((other.status().as_u16(), other.text().await.unwrap().as_str()), (200, WEIGHTS));
}

#[tokio::test]
async fn a_range_outside_the_file_is_refused_with_its_length() {
    let app = TestApp::new().await;
    let id = app.succeeded(&FILES).await;
    let response = with_headers(&app, Method::GET, &id, &[("range", "bytes=10-")]).await;
    assert_eq!((response.status().as_u16(), header(&response, "content-range")), (416, "bytes */10"));
    assert_eq!(code(response).await, "range_not_satisfiable");
}

#[tokio::test]
async fn a_client_that_has_the_file_is_not_sent_it_again() {
    let app = TestApp::new().await;
    let id = app.succeeded(&FILES).await;
    let tag = format!("\"{}\"", sha256(WEIGHTS));
    let response = with_headers(&app, Method::GET, &id, &[("if-none-match", &format!("\"x\", {tag}"))]).await;
    assert_eq!((response.status().as_u16(), header(&response, "etag")), (304, tag.as_str()));
    let other = with_headers(&app, Method::GET, &id, &[("if-none-match", "\"x\"")]).await;
    assert_eq!(other.status(), 200);
    let failed = with_headers(&app, Method::GET, &id, &[("if-match", "\"x\"")]).await;
    assert_eq!((failed.status().as_u16(), code(failed).await.as_str()), (412, "precondition_failed"));
    let matched = with_headers(&app, Method::GET, &id, &[("if-match", &tag)]).await;
    assert_eq!(matched.status(), 200);
}

#[tokio::test]
async fn names_that_were_not_published_are_not_found() {
    let app = TestApp::new().await;
    let id = app.succeeded(&FILES).await;
    for name in
        ["nothing", "..%2F..%2Fgraspd.db", "%2Fetc%2Fpasswd", "tokenizer", "model.safetensors/", "%00", "%2e%2e%2f"]
    {
        let response = app.get_artifact(&id, name).await;
        assert_eq!(response.status(), 404, "{name}");
        assert_eq!(code(response).await, "artifact_not_found", "{name}");
    }
}

#[tokio::test]
async fn a_report_is_the_published_file() {
    let app = TestApp::new().await;
    let id = app.succeeded(&FILES).await;
    let response = app.get_report(&id).await;
    assert_eq!((response.status().as_u16(), header(&response, "content-type")), (200, "application/json"));
    assert_eq!(header(&response, "content-disposition"), "");
    assert_eq!(response.text().await.unwrap(), REPORT);
}

#[tokio::test]
async fn nothing_is_shown_of_a_job_that_has_not_succeeded() {
    let app = TestApp::new().await;
    // Published, but not settled yet: the worker may die in between.
    let running = app.running().await;
    app.publish(running.id, &FILES).await;
    let failed = app.ended(Outcome::Failed(Failure::give_up(FailureCode::InvalidModel, "no"))).await;
    for (id, expected) in [(running.id.to_string(), "job_not_finished"), (failed, "job_not_succeeded")] {
        for response in [app.get_report(&id).await, app.get_artifact(&id, "model.safetensors").await] {
            assert_eq!(response.status(), 409);
            assert_eq!(code(response).await, expected);
        }
        let list: Value = app.list_artifacts(&id).await.json().await.unwrap();
        assert_eq!(list["data"], json!([]));
    }
}
