//! The REST surface: requests are parsed at the edge, replies are views of records, every error is a problem document.
//!
//! Nothing here knows how a job is run. [`router`] is what the binary and the tests serve.

pub mod client;
mod endpoints;
mod extract;
mod file;
mod observe;
mod openapi;
mod problem;
pub mod server;
mod state;
mod view;

use axum::{
    Router,
    middleware::from_fn_with_state,
    routing::{get, post},
};
use endpoints::{
    cancel_job, create_job, get_artifact, get_job, get_livez, get_metrics, get_openapi, get_readyz, get_report,
    get_version, list_artifacts, list_jobs,
};
pub use observe::{REQUEST_SECONDS, REQUEST_SECONDS_BUCKETS};
pub use openapi::openapi_yaml;
pub use problem::{ApiError, Problem};
pub use state::{ApiState, Draining};
use tower_http::catch_panic::CatchPanicLayer;
pub use view::{ArtifactList, ArtifactView, ErrorView, JobList, JobView, ProgressView, VersionView};

/// The whole API over `state`.
pub fn router(state: ApiState) -> Router {
    Router::new()
        .route("/v1/jobs", post(create_job::create_job).get(list_jobs::list_jobs))
        .route("/v1/jobs/{id}", get(get_job::get_job))
        .route("/v1/jobs/{id}/cancel", post(cancel_job::cancel_job))
        .route("/v1/jobs/{id}/report", get(get_report::get_report))
        .route("/v1/jobs/{id}/artifacts", get(list_artifacts::list_artifacts))
        .route("/v1/jobs/{id}/artifacts/{*name}", get(get_artifact::get_artifact))
        .route("/livez", get(get_livez::get_livez))
        .route("/readyz", get(get_readyz::get_readyz))
        .route("/metrics", get(get_metrics::get_metrics))
        .route("/openapi.yaml", get(get_openapi::get_openapi))
        .route("/version", get(get_version::get_version))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(CatchPanicLayer::custom(problem::of_panic))
        .layer(from_fn_with_state(state.clone(), observe::observe))
        .with_state(state)
}
