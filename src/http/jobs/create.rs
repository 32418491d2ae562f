use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
};

use crate::{
    http::{AppState, JobView, LARGEST_BODY, Problem},
    job::{JobSpec, spec::JobBody},
};

/// Submit a job. The answer is sent once the job is on disk.
#[utoipa::path(
    post, path = "/v1/jobs", operation_id = "createJob", tag = "jobs",
    request_body(content = JobBody, content_type = "application/json"),
    responses(
        (status = 202, description = "Accepted", body = JobView, headers(("Location" = String, description = "URL of the job"))),
        (status = 400, description = "`invalid_json`: the body is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "`body_too_large`: more than 64 KiB", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported_media_type`: not application/json", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_spec`: a field is wrong; `field` names it", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`draining` or `store_unavailable`", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "`disk_full`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn create_job(
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<impl IntoResponse, Problem> {
    if *state.draining.borrow() {
        return Err(Problem::draining());
    }
    let spec = parse(&headers, &body.map_err(|error| unreadable(&error))?)?;
    let record = state.store.submit(state.ids.job_id(), &spec).await?;
    tracing::info!(job.id = %record.id, model = %spec.model, "job accepted");
    let location = format!("/v1/jobs/{}", record.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(JobView::from(record))))
}

fn parse(headers: &HeaderMap, body: &[u8]) -> Result<JobSpec, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        let detail = "send the job as JSON with the header content-type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    let body = serde_json::from_slice(body).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_json", format!("the body is not JSON: {error}"))
    })?;
    Ok(JobSpec::parse(&body)?)
}

fn unreadable(error: &BytesRejection) -> Problem {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let detail = format!("the body is longer than {LARGEST_BODY} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
        }
        _ => Problem::new(StatusCode::BAD_REQUEST, "invalid_body", "the body broke off"),
    }
}
