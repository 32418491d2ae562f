//! The committed description is the one the code gives.

use std::path::Path;

use graspd::http::{openapi, openapi_yaml};
use reqwest::Method;
use serde_json::Value;

use crate::{TestApp, header};

#[test]
fn the_committed_description_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.yaml");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == openapi_yaml(), "openapi.yaml is stale: run `graspd openapi > openapi.yaml` and commit it");
}

#[tokio::test]
async fn the_server_shows_its_description() {
    let app = TestApp::new().await;
    let response = app.get("/openapi.yaml").await;
    assert_eq!(header(&response, "content-type"), "application/yaml");
    assert_eq!(response.text().await.unwrap(), openapi_yaml());
}

#[test]
fn the_description_names_every_route_and_resolves_its_references() {
    let text = openapi_yaml();
    assert!(text.starts_with("openapi: 3.1.0"), "{}", text.lines().next().unwrap());
    for path in [
        "/v1/jobs",
        "/v1/jobs/{id}",
        "/v1/jobs/{id}/events",
        "/v1/jobs/{id}/logs",
        "/v1/jobs/{id}/cancel",
        "/v1/jobs/{id}/pause",
        "/v1/jobs/{id}/resume",
        "/v1/jobs/{id}/archive",
        "/v1/plans",
        "/v1/datasets",
        "/v1/datasets/{id}",
        "/v1/capabilities",
        "/v1/jobs/{id}/report",
        "/v1/jobs/{id}/artifacts",
        "/v1/jobs/{id}/artifacts/{name}",
        "/v1/jobs/{id}/publish",
        "/livez",
        "/readyz",
        "/metrics",
        "/openapi.yaml",
        "/version",
    ] {
        assert!(text.contains(&format!("\n  {path}:\n")), "{path}");
    }
    let references = text.lines().filter_map(|line| line.split_once("$ref: '#/components/schemas/"));
    for (_, rest) in references {
        let name = rest.trim_end_matches('\'');
        assert!(text.contains(&format!("\n    {name}:\n")), "{name} is not described");
    }
}

/// The example of a body: its own, or that of the schema it refers to.
fn example<'a>(description: &'a Value, content: &'a Value) -> Option<&'a Value> {
    let schema = content["schema"]["$ref"].as_str().and_then(|path| description.pointer(path.trim_start_matches('#')));
    content.get("example").or_else(|| schema?.get("example"))
}

fn filled(path: &str, job: &str, dataset: &str) -> String {
    let id = if path.starts_with("/v1/datasets") { dataset } else { job };
    path.replace("{id}", id).replace("{name}", "report.json")
}

#[tokio::test]
async fn every_operation_answers_its_own_examples_as_it_says() {
    let description = serde_json::to_value(openapi()).unwrap();
    let mut asked = 0;
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let app = TestApp::new().await;
            let job = app.succeeded(&[("report.json", "{}")]).await;
            let upload = app.request(Method::POST, "/v1/datasets").header("content-type", "text/plain").body("text");
            let dataset: Value = upload.send().await.unwrap().json().await.unwrap();
            let path = filled(path, &job, dataset["id"].as_str().unwrap());
            let method: Method = method.to_uppercase().parse().unwrap();
            let bodies = operation["requestBody"]["content"].as_object().cloned().unwrap_or_default();
            let mut requests = Vec::new();
            for (kind, content) in &bodies {
                let body = example(&description, content).unwrap_or_else(|| panic!("{method} {path}: no example"));
                let text = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
                requests.push(app.request(method.clone(), &path).header("content-type", kind).body(text));
            }
            if bodies.is_empty() {
                requests.push(app.request(method.clone(), &path));
            }
            for request in requests {
                let status = request.send().await.unwrap().status();
                let documented = operation["responses"].get(status.as_str()).is_some();
                assert!(documented && status.as_u16() < 500, "{method} {path}: {status}");
                // A job that has ended cannot be cancelled or paused, and nobody gives a token to publish with here.
                let refused = status.as_u16() == 409 || path.ends_with("/publish");
                assert!(status.is_success() || refused, "{method} {path}: {status}");
                asked += 1;
            }
        }
    }
    assert!(asked > 20, "{asked}");
}
