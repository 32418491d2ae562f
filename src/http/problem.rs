//! Errors as RFC 9457 problem details with a stable code.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{artifact::ArtifactError, job::SpecError, queue::StoreError};

/// What went wrong with a request (RFC 9457, `application/problem+json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URI that names the kind of problem.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    pub kind: String,
    /// The status in words.
    #[schema(example = "Unprocessable Entity")]
    pub title: String,
    /// The HTTP status.
    #[schema(example = 422)]
    pub status: u16,
    /// Stable code that scripts may compare.
    #[schema(example = "invalid_spec")]
    pub code: String,
    /// What is wrong and what to do.
    #[schema(example = "grasp.retain_ratio: 1.5 is out of range: it must lie in (0, 1]")]
    pub detail: String,
    /// The field at fault, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "grasp.retain_ratio")]
    pub field: Option<String>,
    /// Seconds to wait, for the Retry-After header.
    #[serde(skip)]
    pub retry_after: Option<u32>,
}

/// Seconds after which a service that is restarting is worth another request.
const RETRY_AFTER: u32 = 5;

impl Problem {
    /// A problem without a field.
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            code: code.to_owned(),
            detail: detail.into(),
            field: None,
            retry_after: None,
        }
    }

    /// Names the field at fault.
    #[must_use]
    pub fn field(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    fn retry_later(self) -> Self {
        Self { retry_after: Some(RETRY_AFTER), ..self }
    }

    /// A job that does not exist; also for ids that cannot be one.
    pub fn job_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "job_not_found", "there is no such job")
    }

    /// The service is stopping.
    pub fn draining() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "draining", "the service is stopping and takes no new jobs")
            .retry_later()
    }

    /// A fault of the service; the log has the details.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the service failed; its log says why")
    }
}

impl From<SpecError> for Problem {
    fn from(error: SpecError) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_spec", error.to_string()).field(error.field)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the queue failed");
        match error {
            StoreError::DiskFull => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "disk_full",
                "the server's disk is full: nothing new is accepted",
            ),
            StoreError::Database(_)
            | StoreError::Migration(_)
            | StoreError::NewerDatabase { .. }
            | StoreError::Corrupt { .. }
            | StoreError::OldSqlite { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", "the queue does not answer")
                    .retry_later()
            }
        }
    }
}

impl From<ArtifactError> for Problem {
    fn from(error: ArtifactError) -> Self {
        tracing::error!(%error, "published files cannot be read");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "artifacts_unavailable", "the published files cannot be read")
            .retry_later()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
