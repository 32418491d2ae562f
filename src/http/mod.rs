//! The REST surface: requests are parsed at the edge, replies are views of records, every error is a problem document.
//!
//! Nothing here knows how a job is run. [`router`] is what the binary and the tests serve.

mod access;
mod archive;
pub mod client;
mod endpoints;
mod events;
mod extract;
mod file;
mod idempotency;
mod log;
mod observe;
mod openapi;
mod page;
mod prefer;
mod problem;
mod query;
mod relay;
pub mod server;
mod state;
mod submit;
mod uploads;
mod view;
pub mod webhook;

use std::sync::Arc;

pub use access::RateLimit;
use access::{Gate, Limiter, admit};
use axum::{
    Router,
    http::{HeaderName, HeaderValue, header},
    middleware::from_fn_with_state,
    routing::{get, post},
};
use endpoints::{
    cancel_job, create_dataset, create_evaluation, create_job, create_plan, delete_dataset, delete_job, get_archive,
    get_artifact, get_capabilities, get_dataset, get_job, get_livez, get_logs, get_metrics, get_openapi, get_page,
    get_publication, get_readyz, get_report, get_version, list_artifacts, list_datasets, list_events, list_jobs,
    pause_job, publish_job, resume_job,
};
pub use observe::{REQUEST_SECONDS, REQUEST_SECONDS_BUCKETS};
pub use openapi::{openapi, openapi_yaml};
pub use problem::{ApiError, Problem};
pub use state::{ApiState, Draining, ProbeState, Settings};
use tower_http::{catch_panic::CatchPanicLayer, set_header::SetResponseHeaderLayer};
pub use uploads::Uploads;
pub use view::{
    ArtifactList, ArtifactView, CapabilitiesView, DatasetList, DatasetView, ErrorView, EventList, EventView, JobList,
    JobView, LimitsView, PlanView, ProgressView, VersionView,
};

/// The whole API over `state`.
pub fn router(state: ApiState) -> Router {
    let gate = Gate { limiter: Limiter::new(state.settings.rate), state: state.clone(), open: Arc::default() };
    jobs()
        .merge(others())
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(from_fn_with_state(gate, admit))
        .layer(CatchPanicLayer::custom(problem::of_panic))
        .layer(header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(header(header::REFERRER_POLICY, "no-referrer"))
        // The page says for itself what it loads.
        .layer(header(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"))
        .layer(from_fn_with_state(state.clone(), observe::observe))
        .with_state(state)
}

/// What a process that takes no requests tells its operators: whether it lives, whether it is ready, and its metrics.
pub fn probes(state: ProbeState) -> Router {
    Router::new()
        .route("/livez", get(get_livez::get_livez))
        .route("/readyz", get(get_readyz::get_readyz))
        .route("/metrics", get(get_metrics::get_worker_metrics))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(CatchPanicLayer::custom(problem::of_panic))
        .layer(header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .with_state(state)
}

/// Tells browsers something that a reply does not say by itself.
fn header(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

fn jobs() -> Router<ApiState> {
    let job = get(get_job::get_job).delete(delete_job::delete_job);
    Router::new()
        .route("/v1/jobs", post(create_job::create_job).get(list_jobs::list_jobs))
        .route("/v1/jobs/{id}", job)
        .route("/v1/jobs/{id}/events", get(list_events::list_events))
        .route("/v1/jobs/{id}/logs", get(get_logs::get_logs))
        .route("/v1/jobs/{id}/cancel", post(cancel_job::cancel_job))
        .route("/v1/jobs/{id}/pause", post(pause_job::pause_job))
        .route("/v1/jobs/{id}/resume", post(resume_job::resume_job))
        .route("/v1/jobs/{id}/report", get(get_report::get_report))
        .route("/v1/jobs/{id}/artifacts", get(list_artifacts::list_artifacts))
        .route("/v1/jobs/{id}/artifacts/{*name}", get(get_artifact::get_artifact))
        .route("/v1/jobs/{id}/archive", get(get_archive::get_archive))
        .route("/v1/jobs/{id}/publish", post(publish_job::publish_job).get(get_publication::get_publication))
}

fn others() -> Router<ApiState> {
    let datasets = post(create_dataset::create_dataset).get(list_datasets::list_datasets);
    let dataset = get(get_dataset::get_dataset).delete(delete_dataset::delete_dataset);
    Router::new()
        .route("/v1/evaluations", post(create_evaluation::create_evaluation))
        .route("/v1/plans", post(create_plan::create_plan))
        .route("/v1/datasets", datasets)
        .route("/v1/datasets/{id}", dataset)
        .route("/v1/capabilities", get(get_capabilities::get_capabilities))
        .route("/", get(get_page::get_page))
        .route("/assets/{name}", get(get_page::get_asset))
        .route("/livez", get(get_livez::get_livez))
        .route("/readyz", get(get_readyz::get_readyz))
        .route("/metrics", get(get_metrics::get_metrics))
        .route("/openapi.yaml", get(get_openapi::get_openapi))
        .route("/version", get(get_version::get_version))
}
