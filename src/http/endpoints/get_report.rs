use axum::{
    extract::{Request, State},
    http::{HeaderValue, header},
    response::Response,
};

use crate::{
    http::{ApiError, ApiState, Problem, extract::PathId, file},
    job::Report,
};

const REPORT: &str = "report.json";

/// Shows what a job did and what came of it: its published `report.json`.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/report", operation_id = "get_report", tag = "jobs",
    params(("id" = String, Path, description = "The job's id")),
    responses(
        (status = 200, description = "The report", body = Report),
        (status = 404, description = "`job_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`job_not_finished`, or `job_not_succeeded` when it never will", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn get_report(
    State(state): State<ApiState>,
    PathId(id): PathId,
    request: Request,
) -> Result<Response, ApiError> {
    let mut response = file::serve(&state, id, REPORT, request).await?;
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_DISPOSITION);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
