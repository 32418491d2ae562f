use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use crate::http::ApiState;

const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics in the text format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", operation_id = "get_metrics", tag = "service",
    responses((status = 200, description = "All metrics", body = String, content_type = "text/plain"))
)]
pub(in crate::http) async fn get_metrics(State(state): State<ApiState>) -> Response {
    // A store that is down must not hide the rest.
    let counts = state.store.counts().await;
    metrics::gauge!("graspd_store_up").set(if counts.is_ok() { 1.0 } else { 0.0 });
    match counts {
        Ok(counts) => {
            for (status, jobs) in counts {
                metrics::gauge!("graspd_jobs", "status" => status.as_str()).set(jobs as f64);
            }
        }
        Err(error) => tracing::warn!(error = %error, "jobs could not be counted"),
    }
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], state.metrics.render()).into_response()
}
