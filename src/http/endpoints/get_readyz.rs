use axum::extract::State;

use crate::http::{ApiError, ProbeState, Problem};

/// Says whether the service takes jobs: its store answers and it is not about to stop.
#[utoipa::path(
    get, path = "/readyz", operation_id = "get_readyz", tag = "service",
    responses(
        (status = 200, description = "It does", body = String, content_type = "text/plain"),
        (status = 503, description = "`draining` or `store_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn get_readyz(State(state): State<ProbeState>) -> Result<&'static str, ApiError> {
    if state.draining.is_draining() {
        return Err(ApiError::Draining);
    }
    state.store.ping().await?;
    Ok("ok\n")
}
