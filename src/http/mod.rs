//! The REST surface: a router over the queue and the published folders, and the loop that serves it.
//!
//! A handler extracts, calls once and maps. Errors are [`Problem`]s; what a caller sees are views, never rows.

mod artifacts;
pub mod client;
mod jobs;
mod layers;
mod openapi;
mod problem;
pub mod server;
mod system;
mod view;

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post},
};
pub use openapi::openapi_yaml;
pub use problem::Problem;
use tokio::sync::watch;
pub use view::{ArtifactView, JobView, List};

use crate::{artifact::ArtifactStore, clock::Ids, queue::JobStore};

/// The largest request body, in bytes.
pub const LARGEST_BODY: usize = 64 << 10;

/// What handlers reach.
#[derive(Clone)]
pub struct AppState {
    /// The queue.
    pub store: Arc<dyn JobStore>,
    /// Published folders.
    pub artifacts: Arc<dyn ArtifactStore>,
    /// Ids of jobs and requests.
    pub ids: Arc<dyn Ids>,
    /// Turns true when the service stops: it is then not ready and takes no new jobs.
    pub draining: watch::Receiver<bool>,
    /// Renders this process's metrics in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// The whole API; the binary and the tests call the same function.
pub fn router(state: AppState) -> Router {
    let routes = Router::new()
        .route("/v1/jobs", post(jobs::create_job).get(jobs::list_jobs))
        .route("/v1/jobs/{id}", get(jobs::get_job))
        .route("/v1/jobs/{id}/cancel", post(jobs::cancel_job))
        .route("/v1/jobs/{id}/report", get(artifacts::get_report))
        .route("/v1/jobs/{id}/artifacts", get(artifacts::list_artifacts))
        .route("/v1/jobs/{id}/artifacts/{*name}", get(artifacts::get_artifact))
        .route("/livez", get(system::get_liveness))
        .route("/readyz", get(system::get_readiness))
        .route("/metrics", get(system::get_metrics))
        .route("/openapi.yaml", get(system::get_openapi))
        .route("/version", get(system::get_version))
        .fallback(layers::not_found)
        .method_not_allowed_fallback(layers::method_not_allowed);
    layers::wrap(routes, &state).with_state(state)
}
