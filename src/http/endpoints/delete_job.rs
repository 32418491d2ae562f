use axum::{extract::State, http::StatusCode};

use crate::{
    http::{ApiError, ApiState, Problem, extract::PathJob},
    queue::{Deletion, JobRecord},
};

/// Deletes a job that has ended: its record, its events, its log and its files.
#[utoipa::path(
    delete, path = "/v1/jobs/{id}", operation_id = "delete_job", tag = "jobs",
    params(("id" = String, Path, description = "The job's id")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "`job_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`job_active`: cancel it first; `job_in_use`: a job that has not ended uses its checkpoint", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "`disk_full`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn delete_job(
    State(state): State<ApiState>,
    PathJob(JobRecord { id, status, .. }): PathJob,
) -> Result<StatusCode, ApiError> {
    if !status.is_terminal() {
        return Err(ApiError::JobActive(status));
    }
    if state.store.models_in_use().await?.contains(&id) {
        return Err(ApiError::JobInUse);
    }
    // Files first: a record without files can still be deleted, files without a record never.
    state.artifacts.remove(id).await?;
    state.logs.remove(id).map_err(ApiError::Files)?;
    match state.store.delete(id).await? {
        Deletion::Deleted => tracing::info!(job.id = %id, "job deleted"),
        Deletion::Active(status) => return Err(ApiError::JobActive(status)),
        Deletion::Unknown => return Err(ApiError::JobNotFound),
    }
    Ok(StatusCode::NO_CONTENT)
}
