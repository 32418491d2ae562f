use axum::{extract::State, http::StatusCode};

use crate::http::{ApiError, ApiState, Problem, extract::PathDataset};

/// Deletes an uploaded data set. A job that still needs it fails.
#[utoipa::path(
    delete, path = "/v1/datasets/{id}", operation_id = "delete_dataset", tag = "datasets",
    params(("id" = String, Path, description = "The data set's id")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "`dataset_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "`disk_full`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn delete_dataset(
    State(state): State<ApiState>,
    PathDataset(record): PathDataset,
) -> Result<StatusCode, ApiError> {
    // The file first: a record without its file can still be deleted, a file without its record never.
    state.uploads.remove(&record.id, record.format).await?;
    state.datasets.remove_dataset(&record.id).await?;
    Ok(StatusCode::NO_CONTENT)
}
