use axum::{extract::State, response::Response};

use crate::{
    http::{
        ApiError, ApiState, JobView, Problem,
        access::Caller,
        extract::AssessmentSpecBody,
        idempotency::IdempotencyKey,
        observe::RequestOrigin,
        prefer::Prefer,
        submit::{self, Sent},
    },
    job::spec::AssessmentBody,
};

/// Submits an evaluation: scores a model as it is, dense or factored.
///
/// It is a job like others, of kind `evaluate`: in the same queue, and watched, cancelled and fetched below `/v1/jobs`;
/// its report has the scores under `evaluation`, as `after`. When the reply arrives, the job is on disk and survives a
/// restart. With an `Idempotency-Key` the same request may be sent again for seven days and makes no second job.
#[utoipa::path(
    post, path = "/v1/evaluations", operation_id = "create_evaluation", tag = "jobs",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Any text of up to 255 printable characters that the client made up for this job", min_length = 1, max_length = 255, pattern = "^[ -~]+$", example = "nightly-2026-11-25"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: answer when the job has ended, or after N seconds, 60 at most", example = "wait=30"),
    ),
    request_body = AssessmentBody,
    responses(
        (status = 202, description = "The job as it now stands", body = JobView,
            headers(
                ("Location" = String, description = "Path of the job"),
                ("Idempotency-Replayed" = String, description = "`true` when the key made the job before"),
                ("Preference-Applied" = String, description = "The wait that was granted"),
            )),
        (status = 400, description = "`malformed_json` or `invalid_idempotency_key`", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "`body_timeout`", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "`body_too_large`: over 64 KiB", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported_media_type`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_spec`: `field` names what is at fault; `idempotency_key_reused`", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`queue_full` or `rate_limited`: try again after `Retry-After` seconds", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`draining` or `store_unavailable`", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "`disk_full`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn create_evaluation(
    State(state): State<ApiState>,
    caller: Caller,
    key: IdempotencyKey,
    prefer: Prefer,
    RequestOrigin(origin): RequestOrigin,
    AssessmentSpecBody(spec): AssessmentSpecBody,
) -> Result<Response, ApiError> {
    let sent = Sent { caller, key, prefer, origin };
    submit::take(&state, sent, spec).await
}
