use axum::{Json, extract::State};

use crate::{
    http::{ApiError, ApiState, JobList, Problem, query::ListQuery},
    job::Status,
};

/// Lists jobs, newest first.
///
/// `metadata[key]=value` lists only jobs with that label; several must all fit.
#[utoipa::path(
    get, path = "/v1/jobs", operation_id = "list_jobs", tag = "jobs",
    params(
        ("after" = Option<String>, Query, description = "Only jobs submitted before this one: the last id of the page before", format = "uuid", example = "01890a5d-ac96-774b-bcce-b302099a8057"),
        ("limit" = Option<u32>, Query, description = "Jobs in a page. Default: 20", minimum = 1, maximum = 100, example = 20),
        ("status" = Option<Status>, Query, description = "Only jobs in this state", example = "succeeded"),
        ("metadata" = Option<BTreeMap<String, String>>, Query, style = DeepObject, explode, description = "Only jobs with these labels, as `metadata[key]=value`", example = json!({"team": "research"})),
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
    Ok(Json(state.store.list(&listing).await?.into()))
}
