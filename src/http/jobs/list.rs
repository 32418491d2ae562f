use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    http::{AppState, JobView, List, Problem},
    queue::Listing,
};

const MOST: u32 = 100;
const USUAL: u32 = 20;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct ListQuery {
    /// Id of the last job of the page before.
    after: Option<String>,
    /// Jobs in a page, 1 to 100. Default: 20.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Only jobs in this state.
    #[param(value_type = Option<crate::job::Status>)]
    status: Option<String>,
}

/// Jobs, newest first.
#[utoipa::path(
    get, path = "/v1/jobs", operation_id = "listJobs", tag = "jobs",
    params(ListQuery),
    responses(
        (status = 200, description = "A page of jobs", body = List<JobView>),
        (status = 400, description = "`invalid_query`: a parameter is wrong; `field` names it", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn list_jobs(
    State(state): State<AppState>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<List<JobView>>, Problem> {
    let Query(query) = query.map_err(|error| invalid(error.body_text()))?;
    let page = state.store.list(listing(query)?).await?;
    Ok(Json(List::new(page.jobs.into_iter().map(JobView::from).collect(), page.has_more)))
}

fn listing(query: ListQuery) -> Result<Listing, Problem> {
    let limit = query.limit.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        return Err(invalid(format!("limit is {limit}: from 1 to {MOST}")).field("limit"));
    }
    let after =
        query.after.map(|id| id.parse()).transpose().map_err(|_| invalid("after is no job id").field("after"))?;
    let status = query
        .status
        .map(|status| status.parse())
        .transpose()
        .map_err(|error: String| invalid(error).field("status"))?;
    Ok(Listing { after, limit, status })
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_query", detail)
}
