//! Errors as RFC 9457 problem documents. One match decides status, code and text of them all.

use std::{any::Any, time::Duration};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    artifact::ArtifactError,
    job::{PublicationRefusal, Scope, SpecError, Status},
    queue::StoreError,
};

/// A problem document (RFC 9457). Scripts compare `code`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "type": "about:blank", "title": "Unprocessable Entity", "status": 422, "code": "invalid_spec",
    "detail": "1.5 is out of range: it must lie in (0, 1]", "field": "grasp.retain_ratio"
}))]
pub struct Problem {
    /// Always `about:blank`: `code` tells problems apart.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// Stable, in snake case.
    pub code: String,
    /// What is wrong and what would be right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The field of the body or the query that is at fault, as a dotted path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// Every way a request can fail.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No such route.
    #[error("there is nothing at this path; /openapi.yaml lists what there is")]
    NotFound,
    /// The route exists for other methods.
    #[error("this path does not take this method; the Allow header lists those it takes")]
    MethodNotAllowed,
    /// No such job, or not even an id.
    #[error("there is no such job")]
    JobNotFound,
    /// The job's folder holds no such file.
    #[error("the job has published no such file; its artifacts are listed at /v1/jobs/{{id}}/artifacts")]
    ArtifactNotFound,
    /// A query parameter is unknown, given twice or out of range.
    #[error("{message}")]
    InvalidQuery {
        /// Which parameter.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// The body is not declared to be JSON.
    #[error("the body must be JSON: send the header content-type: application/json")]
    UnsupportedMediaType,
    /// The body is longer than a job can be.
    #[error("the body is longer than {} bytes", super::extract::LONGEST_BODY)]
    BodyTooLarge,
    /// The body did not come.
    #[error("the body did not arrive within {} seconds", super::extract::BODY_TIMEOUT.as_secs())]
    BodyTimeout,
    /// The body is no JSON.
    #[error("the body is not valid JSON: {0}")]
    MalformedJson(String),
    /// The body is no job.
    #[error("{}", .0.message)]
    InvalidSpec(SpecError),
    /// The job has ended and cannot be cancelled, paused or resumed.
    #[error("the job has already ended: it is {0}")]
    JobAlreadyOver(Status),
    /// The job has not ended and cannot be deleted.
    #[error("the job is {0}: cancel it first, and delete it when it has ended")]
    JobActive(Status),
    /// Other jobs still need the job's files.
    #[error("jobs that have not ended use this job's checkpoint as their model: wait for them, or cancel them first")]
    JobInUse,
    /// The service knows keys and the request has none.
    #[error("a key is needed: send the header authorization: Bearer <key>; `graspd keys create` makes one")]
    KeyNeeded,
    /// The key is unknown, expired or revoked, or is no key.
    #[error("the key is not valid: it is unknown, expired or revoked")]
    InvalidKey,
    /// The key may not do that.
    #[error("the key lacks the scope {0}")]
    ScopeNeeded(Scope),
    /// A page of another site asks, at a service without keys.
    #[error("a service without keys answers no page of another site: make a key with `graspd keys create`")]
    ForeignSite,
    /// Too many requests.
    #[error("too many requests: the Retry-After header says in how many seconds to try again")]
    RateLimited {
        /// Until one more is let through.
        retry_after: Duration,
    },
    /// Too many jobs wait.
    #[error("{whose} has as many jobs waiting as it may have: try again when some have started")]
    QueueFull {
        /// The tenant or the service.
        whose: &'static str,
    },
    /// The Idempotency-Key header is no key.
    #[error("the Idempotency-Key header must hold 1 to 255 printable ASCII characters")]
    InvalidIdempotencyKey,
    /// The same key came with another body before.
    #[error("the Idempotency-Key was sent with another request before: use a new key for a new job")]
    IdempotencyKeyReused,
    /// The Last-Event-ID header is no number of an event.
    #[error("the Last-Event-ID header must hold the number of an event")]
    InvalidLastEventId,
    /// No such uploaded data set.
    #[error("there is no such data set")]
    DatasetNotFound,
    /// The uploaded text is not declared to be one.
    #[error(
        "the body must be text: send the header content-type: text/plain, or application/jsonl for an object a line"
    )]
    UnsupportedText,
    /// The uploaded text cannot be used.
    #[error("{0}")]
    InvalidText(String),
    /// The uploaded text is too long, or the tenant has uploaded too much.
    #[error("{0}")]
    DatasetTooLarge(String),
    /// Files could not be written.
    #[error("the server's files cannot be written; its log has the details")]
    Files(#[source] std::io::Error),
    /// The job has published nothing yet.
    #[error("the job is {0}: its files are there when it has succeeded")]
    JobNotFinished(Status),
    /// The job ended without publishing anything.
    #[error("the job is {0} and has published nothing")]
    JobNotSucceeded(Status),
    /// The job was never published, or not since the server started.
    #[error("the job has not been published to the hub since the server started")]
    NotPublished,
    /// An order to publish is not taken.
    #[error(transparent)]
    Publication(#[from] PublicationRefusal),
    /// A range that lies outside the file.
    #[error("the range lies outside the file, whose length the Content-Range header gives")]
    RangeNotSatisfiable {
        /// `bytes */<length>`.
        content_range: Option<HeaderValue>,
    },
    /// If-Match or If-Unmodified-Since did not hold.
    #[error("a precondition of the request does not hold")]
    PreconditionFailed,
    /// The server is about to stop.
    #[error("the server is stopping: try again in a moment")]
    Draining,
    /// The queue failed.
    #[error("the store of jobs does not answer: try again in a moment")]
    Store(#[from] StoreError),
    /// There is no room for the files of another job.
    #[error("the server's disk is full: nothing was kept")]
    DiskFull,
    /// Published files could not be read.
    #[error("the job's files cannot be read; the server's log has the details")]
    Artifacts(#[from] ArtifactError),
    /// A fault of graspd.
    #[error("internal")]
    Internal,
}

/// Seconds after which what is over soon may be over.
const SOON: u64 = 5;
/// Seconds after which a queue may have room again.
const LATER: u64 = 30;
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

impl ApiError {
    /// The status and the code.
    fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::JobNotFound => (StatusCode::NOT_FOUND, "job_not_found"),
            Self::ArtifactNotFound => (StatusCode::NOT_FOUND, "artifact_not_found"),
            Self::InvalidQuery { .. } => (StatusCode::BAD_REQUEST, "invalid_query"),
            Self::UnsupportedMediaType | Self::UnsupportedText => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
            }
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "body_timeout"),
            Self::MalformedJson(_) => (StatusCode::BAD_REQUEST, "malformed_json"),
            Self::InvalidSpec(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_spec"),
            Self::JobAlreadyOver(_) => (StatusCode::CONFLICT, "job_already_over"),
            Self::JobActive(_) => (StatusCode::CONFLICT, "job_active"),
            Self::JobInUse => (StatusCode::CONFLICT, "job_in_use"),
            Self::KeyNeeded => (StatusCode::UNAUTHORIZED, "key_needed"),
            Self::InvalidKey => (StatusCode::UNAUTHORIZED, "invalid_key"),
            Self::ScopeNeeded(_) => (StatusCode::FORBIDDEN, "scope_needed"),
            Self::ForeignSite => (StatusCode::FORBIDDEN, "foreign_site"),
            Self::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
            Self::QueueFull { .. } => (StatusCode::TOO_MANY_REQUESTS, "queue_full"),
            Self::InvalidIdempotencyKey => (StatusCode::BAD_REQUEST, "invalid_idempotency_key"),
            Self::IdempotencyKeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
            Self::InvalidLastEventId => (StatusCode::BAD_REQUEST, "invalid_last_event_id"),
            Self::DatasetNotFound => (StatusCode::NOT_FOUND, "dataset_not_found"),
            Self::InvalidText(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_text"),
            Self::DatasetTooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "dataset_too_large"),
            Self::Files(error) | Self::Artifacts(ArtifactError::Io { source: error, .. }) if is_full(error) => {
                (StatusCode::INSUFFICIENT_STORAGE, "disk_full")
            }
            Self::JobNotFinished(_) => (StatusCode::CONFLICT, "job_not_finished"),
            Self::JobNotSucceeded(_) => (StatusCode::CONFLICT, "job_not_succeeded"),
            Self::NotPublished => (StatusCode::NOT_FOUND, "not_published"),
            Self::Publication(PublicationRefusal::Running) => (StatusCode::CONFLICT, "publication_running"),
            Self::Publication(PublicationRefusal::NoToken) => (StatusCode::UNPROCESSABLE_ENTITY, "hub_token_missing"),
            Self::RangeNotSatisfiable { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable"),
            Self::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "precondition_failed"),
            Self::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
            Self::Store(StoreError::DiskFull) | Self::DiskFull => (StatusCode::INSUFFICIENT_STORAGE, "disk_full"),
            Self::Store(_) | Self::Artifacts(ArtifactError::Objects { .. } | ArtifactError::Rows(_)) => {
                (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable")
            }
            Self::Artifacts(_) | Self::Files(_) | Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }

    fn field(&self) -> Option<String> {
        match self {
            Self::InvalidQuery { field, .. } => Some(field.clone()),
            Self::InvalidSpec(error) => Some(error.field.clone()),
            _ => None,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Internal => None,
            Self::Store(StoreError::DiskFull) => Some("the server's disk is full: nothing was kept".to_owned()),
            _ => Some(self.to_string()),
        }
    }

    /// The text of these is for operators; the reply does not carry it.
    fn log(&self) {
        match self {
            Self::Store(error) => tracing::error!(error = %error, "the store of jobs failed"),
            Self::Artifacts(error) => tracing::error!(error = %error, "published files could not be read"),
            Self::Files(error) => tracing::error!(error = %error, "files could not be written"),
            _ => {}
        }
    }

    /// In how many seconds the same request may do better.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after } => Some(retry_after.as_secs_f64().ceil() as u64),
            Self::QueueFull { .. } => Some(LATER),
            _ => (self.kind().0 == StatusCode::SERVICE_UNAVAILABLE).then_some(SOON),
        }
    }

    fn problem(&self) -> Problem {
        let (status, code) = self.kind();
        Problem {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            code: code.to_owned(),
            detail: self.detail(),
            field: self.field(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let (status, _) = self.kind();
        let mut response = (status, Json(self.problem())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Self::RangeNotSatisfiable { content_range: Some(range) } = self {
            headers.insert(header::CONTENT_RANGE, range);
        }
        response
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// What a panic in a handler looks like from outside; the panic hook has printed where it was.
#[expect(clippy::needless_pass_by_value, reason = "the layer hands it over")]
pub(super) fn of_panic(payload: Box<dyn Any + Send>) -> Response {
    let message = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a message");
    tracing::error!(panic = message, "a handler panicked");
    ApiError::Internal.into_response()
}
