use axum::{Json, extract::State};

use crate::{
    http::{ApiError, ApiState, JobList, Problem, extract::ListQuery},
    job::Status,
};

/// Lists jobs, newest first.
#[utoipa::path(
    get, path = "/v1/jobs", operation_id = "list_jobs", tag = "jobs",
    params(
        ("after" = Option<String>, Query, description = "Only jobs submitted before this one: the last id of the page before"),
        ("limit" = Option<u32>, Query, description = "Jobs in a page. Default: 20", minimum = 1, maximum = 100),
        ("status" = Option<Status>, Query, description = "Only jobs in this state"),
    ),
    responses(
        (status = 200, description = "One page", body = JobList),
        (status = 400, description = "`invalid_query`: `field` names the parameter", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn list_jobs(
    State(state): State<ApiState>,
    ListQuery(listing): ListQuery,
) -> Result<Json<JobList>, ApiError> {
    Ok(Json(state.store.list(listing).await?.into()))
}
