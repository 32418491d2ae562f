use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
};

use crate::{
    http::{
        ApiError, ApiState, Problem,
        extract::{PathId, json_body},
    },
    job::{Publication, PublicationBody, PublicationOrder, Status, Token},
};

/// The header with the caller's own token of the hub.
const TOKEN: &str = "x-hf-token";

/// Publishes a job's checkpoint to a model repository on the hub.
///
/// The reply comes at once; `GET` on the same path says how far it is. All files appear in one commit. The token is that
/// of the header, else the server's; it is neither stored nor logged.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/publish", operation_id = "publish_job", tag = "artifacts",
    params(
        ("id" = String, Path, description = "The job's id"),
        ("X-HF-Token" = Option<String>, Header, description = "A token that may write to the repository", example = "hf_your_own_token"),
    ),
    request_body = PublicationBody,
    responses(
        (status = 202, description = "It has begun", body = Publication,
            headers(("Location" = String, description = "Where to ask how it stands"))),
        (status = 400, description = "`malformed_json`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`job_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`publication_running`, `job_not_finished`, or `job_not_succeeded`", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported_media_type`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_spec`, or `hub_token_missing`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`draining` or `store_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn publish_job(
    State(state): State<ApiState>,
    PathId(id): PathId,
    request: Request,
) -> Result<impl IntoResponse, ApiError> {
    let token = token(request.headers());
    let order = PublicationOrder::parse(&json_body(request).await?, token).map_err(ApiError::InvalidSpec)?;
    if state.draining.is_draining() {
        return Err(ApiError::Draining);
    }
    let record = state.store.get(id).await?.ok_or(ApiError::JobNotFound)?;
    match record.status {
        Status::Succeeded => {}
        Status::Queued | Status::Running | Status::Paused => return Err(ApiError::JobNotFinished(record.status)),
        Status::Failed | Status::Cancelled => return Err(ApiError::JobNotSucceeded(record.status)),
    }
    let publication = state.publisher.publish(id, order)?;
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, format!("/v1/jobs/{id}/publish"))], Json(publication)))
}

fn token(headers: &HeaderMap) -> Option<Token> {
    let text = headers.get(TOKEN)?.to_str().ok()?.trim();
    (!text.is_empty()).then(|| Token::new(text.to_owned()))
}
