use axum::{Json, extract::State};

use crate::{
    http::{ApiError, ApiState, Problem, extract::PathId},
    job::Publication,
};

/// Shows how the last publication of a job stands.
///
/// The server forgets it when it stops; publishing again is safe, and sends no large file that the hub has.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/publish", operation_id = "get_publication", tag = "artifacts",
    params(("id" = String, Path, description = "The job's id")),
    responses(
        (status = 200, description = "How it stands", body = Publication),
        (status = 404, description = "`job_not_found`, or `not_published`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn get_publication(
    State(state): State<ApiState>,
    PathId(id): PathId,
) -> Result<Json<Publication>, ApiError> {
    state.store.get(id).await?.ok_or(ApiError::JobNotFound)?;
    state.publisher.publication(id).map(Json).ok_or(ApiError::NotPublished)
}
