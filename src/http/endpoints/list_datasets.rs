use axum::{Json, extract::State};

use crate::http::{ApiError, ApiState, DatasetList, DatasetView, Problem, access::Caller, view::ListObject};

/// Lists uploaded data sets, newest first.
#[utoipa::path(
    get, path = "/v1/datasets", operation_id = "list_datasets", tag = "datasets",
    responses(
        (status = 200, description = "All of them", body = DatasetList),
        (status = 503, description = "`store_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn list_datasets(
    State(state): State<ApiState>,
    caller: Caller,
) -> Result<Json<DatasetList>, ApiError> {
    let data = state.datasets.datasets(&caller.tenant).await?.into_iter().map(DatasetView::from).collect();
    Ok(Json(DatasetList { object: ListObject::List, data, has_more: false }))
}
