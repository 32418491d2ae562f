use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};

use crate::http::{ApiError, ApiState, Problem, extract::PathId, log, query::LogQuery};

/// Shows the log of a job's worker processes as text, over all its attempts; empty before the first.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/logs", operation_id = "get_logs", tag = "jobs",
    params(
        ("id" = String, Path, description = "The job's id"),
        ("follow" = Option<String>, Query, description = "`1`: go on with what is logged until the job has ended", pattern = "^(0|1|true|false)$", example = "0"),
    ),
    responses(
        (status = 200, description = "The log", body = String, content_type = "text/plain"),
        (status = 400, description = "`invalid_query`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`job_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn get_logs(
    State(state): State<ApiState>,
    PathId(id): PathId,
    LogQuery { follow }: LogQuery,
) -> Result<Response, ApiError> {
    let mut response = Body::from_stream(log::read(state, id, follow)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}
