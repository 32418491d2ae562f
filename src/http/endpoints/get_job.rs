use axum::{Json, extract::State};

use crate::http::{ApiError, ApiState, JobView, Problem, extract::PathId};

/// Shows a job.
#[utoipa::path(
    get, path = "/v1/jobs/{id}", operation_id = "get_job", tag = "jobs",
    params(("id" = String, Path, description = "The job's id")),
    responses(
        (status = 200, description = "The job", body = JobView),
        (status = 404, description = "`job_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn get_job(
    State(state): State<ApiState>,
    PathId(id): PathId,
) -> Result<Json<JobView>, ApiError> {
    let record = state.store.get(id).await?.ok_or(ApiError::JobNotFound)?;
    Ok(Json(record.into()))
}
