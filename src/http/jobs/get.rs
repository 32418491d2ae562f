use axum::{
    Json,
    extract::{Path, State},
};

use super::parse_id;
use crate::http::{AppState, JobView, Problem};

/// A job as it stands.
#[utoipa::path(
    get, path = "/v1/jobs/{id}", operation_id = "getJob", tag = "jobs",
    params(("id" = String, Path, description = "The job's id")),
    responses(
        (status = 200, description = "The job", body = JobView),
        (status = 404, description = "`job_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn get_job(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, Problem> {
    let record = state.store.get(parse_id(&id)?).await?.ok_or_else(Problem::job_not_found)?;
    Ok(Json(record.into()))
}
