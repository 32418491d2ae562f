use axum::{Json, extract::State};

use crate::{
    http::{ApiError, ApiState, ArtifactList, Problem, extract::PathJob},
    job::Status,
};

/// Lists the files a job has published; none until it has succeeded.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/artifacts", operation_id = "list_artifacts", tag = "artifacts",
    params(("id" = String, Path, description = "The job's id")),
    responses(
        (status = 200, description = "All files", body = ArtifactList),
        (status = 404, description = "`job_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn list_artifacts(
    State(state): State<ApiState>,
    PathJob(record): PathJob,
) -> Result<Json<ArtifactList>, ApiError> {
    let published = match record.status {
        Status::Succeeded => state.artifacts.list(record.id).await?.unwrap_or_default(),
        Status::Queued | Status::Running | Status::Paused | Status::Failed | Status::Cancelled => Vec::new(),
    };
    Ok(Json(ArtifactList::new(record.id, published)))
}
