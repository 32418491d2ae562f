use std::{fs, path::Path};

use graspd::http::openapi_yaml;

#[test]
fn the_committed_description_is_the_generated_one() {
    let committed = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.yaml")).unwrap();
    assert!(committed == openapi_yaml(), "openapi.yaml is out of date: cargo run -- openapi > openapi.yaml");
}

#[test]
fn every_operation_is_described() {
    let text = openapi_yaml();
    for operation in ["createJob", "listJobs", "getJob", "cancelJob", "getReport", "listArtifacts", "getArtifact", "getReadiness", "getMetrics"] {
        assert!(text.contains(&format!("operationId: {operation}")), "{operation}");
    }
    assert!(text.starts_with("openapi: 3.1"));
}
