use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};

use super::parse_id;
use crate::{
    http::{AppState, JobView, Problem},
    queue::Cancellation,
};

/// Cancel a job. A queued one is cancelled at once; a running one within seconds, and nothing is published after it.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/cancel", operation_id = "cancelJob", tag = "jobs",
    params(("id" = String, Path, description = "The job's id")),
    responses(
        (status = 200, description = "The job: cancelled, or still running with `cancel_requested`", body = JobView),
        (status = 404, description = "`job_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`job_already_over`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn cancel_job(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, Problem> {
    match state.store.cancel(parse_id(&id)?).await? {
        Cancellation::Accepted(record) => Ok(Json(record.into())),
        Cancellation::Unknown => Err(Problem::job_not_found()),
        Cancellation::AlreadyOver(record) => {
            let detail = format!("the job is already {}", record.status);
            Err(Problem::new(StatusCode::CONFLICT, "job_already_over", detail))
        }
    }
}
