use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use crate::{
    artifact::hexadecimal,
    http::{ApiError, ApiState, JobView, Problem, extract::PathJob, file, prefer::Prefer},
    queue::JobRecord,
};

/// Shows a job.
///
/// With `If-None-Match` a job that has not changed is answered with 304. With `Prefer: wait=N` the answer comes as soon
/// as the job changes, from what the entity tag stands for or else from how it stood, or after N seconds.
#[utoipa::path(
    get, path = "/v1/jobs/{id}", operation_id = "get_job", tag = "jobs",
    params(
        ("id" = String, Path, description = "The job's id"),
        ("If-None-Match" = Option<String>, Header, description = "Entity tag of what the client has", example = "\"5e1c4f1a9b3d2c7e8f60a1b2c3d4e5f6\""),
        ("Prefer" = Option<String>, Header, description = "`wait=N`, 60 seconds at most", example = "wait=30"),
    ),
    responses(
        (status = 200, description = "The job", body = JobView, headers(
            ("ETag" = String, description = "Changes whenever the job does"),
            ("Preference-Applied" = String, description = "The wait that was granted"),
        )),
        (status = 304, description = "The client has it"),
        (status = 404, description = "`job_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn get_job(
    State(state): State<ApiState>,
    PathJob(before): PathJob,
    prefer: Prefer,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let changed = |record: &JobRecord| match headers.contains_key(header::IF_NONE_MATCH) {
        true => !file::is_known(&headers, &Shown::new(record.clone()).tag),
        false => *record != before,
    };
    // One that has ended will not change by itself: nobody waits for it.
    let enough = |record: &JobRecord| record.status.is_terminal() || changed(record);
    let Shown { body, tag } = Shown::new(prefer.wait(&state, before.id, enough).await?);
    let mut response = if file::is_known(&headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    };
    let fields = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        fields.insert(header::ETAG, tag);
    }
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(prefer.apply(response))
}

/// A job as sent, and its entity tag.
struct Shown {
    body: Vec<u8>,
    tag: String,
}

impl Shown {
    fn new(record: JobRecord) -> Self {
        // Plain data is always written.
        let body = serde_json::to_vec(&JobView::from(record)).unwrap_or_default();
        let tag = format!("\"{}\"", hexadecimal(&Sha256::digest(&body)[..16]));
        Self { body, tag }
    }
}
