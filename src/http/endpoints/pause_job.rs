use axum::{Json, extract::State};

use crate::{
    http::{ApiError, ApiState, JobView, Problem, extract::PathId},
    queue::Change,
};

/// Pauses a job.
///
/// A queued job is paused at once. A running one shows `pause_requested` until the step under way is finished, a layer at
/// the longest; it then waits, with everything it has done kept, until it is resumed or cancelled.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/pause", operation_id = "pause_job", tag = "jobs",
    params(("id" = String, Path, description = "The job's id")),
    responses(
        (status = 200, description = "The job as it now stands", body = JobView),
        (status = 404, description = "`job_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`job_already_over`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "`disk_full`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn pause_job(
    State(state): State<ApiState>,
    PathId(id): PathId,
) -> Result<Json<JobView>, ApiError> {
    match state.store.pause(id).await? {
        Change::Accepted(record) => Ok(Json(record.into())),
        Change::AlreadyOver(record) => Err(ApiError::JobAlreadyOver(record.status)),
        Change::Unknown => Err(ApiError::JobNotFound),
    }
}
