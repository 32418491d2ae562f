use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};

use crate::{
    http::{ApiError, ApiState, JobView, Problem, extract::SpecBody},
    job::spec::JobBody,
};

/// Submits a job.
///
/// When the reply arrives, the job is on disk and survives a restart.
#[utoipa::path(
    post, path = "/v1/jobs", operation_id = "create_job", tag = "jobs",
    request_body = JobBody,
    responses(
        (status = 202, description = "The job, queued", body = JobView,
            headers(("Location" = String, description = "Path of the job"))),
        (status = 400, description = "`malformed_json`", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "`body_timeout`", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "`body_too_large`: over 64 KiB", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported_media_type`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_spec`: `field` names what is at fault", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`draining` or `store_unavailable`", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "`disk_full`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn create_job(
    State(state): State<ApiState>,
    SpecBody(spec): SpecBody,
) -> Result<impl IntoResponse, ApiError> {
    if state.draining.is_draining() {
        return Err(ApiError::Draining);
    }
    let record = state.store.submit(state.ids.job_id(), &spec).await?;
    tracing::info!(job.id = %record.id, job.model = %spec.model, "job submitted");
    let location = format!("/v1/jobs/{}", record.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(JobView::from(record))))
}
