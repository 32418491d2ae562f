//! The committed description is the one the code gives.

use std::path::Path;

use graspd::http::openapi_yaml;

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
