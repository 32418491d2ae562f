use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use metrics_exporter_prometheus::PrometheusHandle;

use crate::http::{ApiState, ProbeState};

const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics in the text format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", operation_id = "get_metrics", tag = "service",
    responses((status = 200, description = "All metrics", body = String, content_type = "text/plain"))
)]
pub(in crate::http) async fn get_metrics(State(state): State<ApiState>) -> Response {
    // A store that is down must not hide the rest.
    let counts = state.store.counts().await;
    note_store(counts.is_ok());
    match counts {
        Ok(counts) => {
            for (status, jobs) in counts {
                metrics::gauge!("graspd_jobs", "status" => status.as_str()).set(jobs as f64);
            }
        }
        Err(error) => tracing::warn!(error = %error, "jobs could not be counted"),
    }
    rendered(&state.metrics)
}

/// Those of a process that only runs jobs. It does not count the jobs of the store: the API does, and a thousand workers
/// would all ask for the same.
pub(in crate::http) async fn get_worker_metrics(State(state): State<ProbeState>) -> Response {
    note_store(state.store.ping().await.is_ok());
    rendered(&state.metrics)
}

fn note_store(answers: bool) {
    metrics::gauge!("graspd_store_up").set(if answers { 1.0 } else { 0.0 });
}

fn rendered(metrics: &PrometheusHandle) -> Response {
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], metrics.render()).into_response()
}
