//! Probes, metrics and what the service says of itself.

use std::fmt::Write as _;

use axum::{Json, extract::State, http::header, response::IntoResponse};
use serde::Serialize;
use utoipa::ToSchema;

use super::{AppState, Problem, openapi_yaml};

/// Whether the process answers at all.
#[utoipa::path(get, path = "/livez", operation_id = "getLiveness", tag = "system", responses((status = 200, description = "It does", body = String, content_type = "text/plain")))]
pub(super) async fn get_liveness() -> &'static str {
    "ok\n"
}

/// Whether it takes jobs: the queue answers and the service is not stopping.
#[utoipa::path(
    get, path = "/readyz", operation_id = "getReadiness", tag = "system",
    responses(
        (status = 200, description = "It does", body = String, content_type = "text/plain"),
        (status = 503, description = "`draining` or `store_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_readiness(State(state): State<AppState>) -> Result<&'static str, Problem> {
    if *state.draining.borrow() {
        return Err(Problem::draining());
    }
    state.store.ping().await?;
    Ok("ok\n")
}

/// Metrics in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", operation_id = "getMetrics", tag = "system",
    responses(
        (status = 200, description = "Metrics", body = String, content_type = "text/plain"),
        (status = 503, description = "`store_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_metrics(State(state): State<AppState>) -> Result<impl IntoResponse, Problem> {
    let mut text = (state.metrics)();
    text.push_str("# HELP graspd_jobs Jobs in each state\n# TYPE graspd_jobs gauge\n");
    for (status, count) in state.store.counts().await? {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "graspd_jobs{{status=\"{status}\"}} {count}");
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

/// This description.
#[utoipa::path(get, path = "/openapi.yaml", operation_id = "getOpenapi", tag = "system", responses((status = 200, description = "OpenAPI 3.1", body = String, content_type = "application/yaml")))]
pub(super) async fn get_openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/yaml")], openapi_yaml())
}

/// Which graspd this is.
#[derive(Serialize, ToSchema)]
pub(super) struct Version {
    /// Always `graspd`.
    #[schema(example = "graspd")]
    name: &'static str,
    /// Version of the package.
    #[schema(example = "0.1.0")]
    version: &'static str,
}

/// Which version runs.
#[utoipa::path(get, path = "/version", operation_id = "getVersion", tag = "system", responses((status = 200, description = "Name and version", body = Version)))]
pub(super) async fn get_version() -> Json<Version> {
    Json(Version { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") })
}
