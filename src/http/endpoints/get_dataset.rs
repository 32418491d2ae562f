use axum::Json;

use crate::http::{ApiError, DatasetView, Problem, extract::PathDataset};

/// Shows an uploaded data set.
#[utoipa::path(
    get, path = "/v1/datasets/{id}", operation_id = "get_dataset", tag = "datasets",
    params(("id" = String, Path, description = "The data set's id")),
    responses(
        (status = 200, description = "The data set", body = DatasetView),
        (status = 404, description = "`dataset_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn get_dataset(PathDataset(record): PathDataset) -> Result<Json<DatasetView>, ApiError> {
    Ok(Json(record.into()))
}
