//! From requests to the words of the service. What does not parse never reaches a handler.

use std::{collections::HashMap, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, header, request::Parts},
};
use http_body_util::BodyExt;

use super::{ApiError, ApiState, access::Caller};
use crate::{
    job::{DatasetId, JobId, JobSpec},
    queue::{DatasetRecord, JobRecord},
};

/// Bytes in the body of a request.
pub(super) const LONGEST_BODY: usize = 64 * 1024;
/// How long a body may take to arrive.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// So much of an over-long body is read and dropped: a client that is still sending would not see the reply.
const MOST_DISCARDED: usize = 1024 * 1024;

/// `{id}` of the path: a job of the caller's. Somebody else's job is as little there as one that never was.
pub(super) struct PathId(pub(super) JobId);

/// The job of the path, as it stood when the request came.
pub(super) struct PathJob(pub(super) JobRecord);

/// `{id}` and `{*name}` of the path, percent-decoded.
pub(super) struct ArtifactPath {
    pub(super) id: JobId,
    pub(super) name: String,
}

async fn path_parameters<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<HashMap<String, String>, ApiError> {
    let path = Path::<HashMap<String, String>>::from_request_parts(parts, state).await;
    path.map(|Path(parameters)| parameters).map_err(|_| ApiError::JobNotFound)
}

fn job_id(parameters: &HashMap<String, String>) -> Result<JobId, ApiError> {
    parameters.get("id").and_then(|id| id.parse().ok()).ok_or(ApiError::JobNotFound)
}

/// The data set of the path, of the caller's.
pub(super) struct PathDataset(pub(super) DatasetRecord);

impl FromRequestParts<ApiState> for PathDataset {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let parameters = path_parameters(parts, state).await.map_err(|_| ApiError::DatasetNotFound)?;
        let id: DatasetId = parameters.get("id").and_then(|id| id.parse().ok()).ok_or(ApiError::DatasetNotFound)?;
        let found = state.datasets.dataset(&id).await?.filter(|record| record.tenant == caller.tenant);
        found.map(Self).ok_or(ApiError::DatasetNotFound)
    }
}

async fn own_job(parts: &mut Parts, state: &ApiState, id: JobId) -> Result<JobRecord, ApiError> {
    let caller = Caller::from_request_parts(parts, state).await?;
    let record = state.store.get(id).await?.filter(|record| record.tenant == caller.tenant);
    record.ok_or(ApiError::JobNotFound)
}

impl FromRequestParts<ApiState> for PathJob {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let id = job_id(&path_parameters(parts, state).await?)?;
        own_job(parts, state, id).await.map(Self)
    }
}

impl FromRequestParts<ApiState> for PathId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        PathJob::from_request_parts(parts, state).await.map(|PathJob(record)| Self(record.id))
    }
}

impl FromRequestParts<ApiState> for ArtifactPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let mut parameters = path_parameters(parts, state).await?;
        let id = own_job(parts, state, job_id(&parameters)?).await?.id;
        Ok(Self { id, name: parameters.remove("name").unwrap_or_default() })
    }
}

/// A body that is a job.
pub(super) struct SpecBody(pub(super) JobSpec);

impl<S: Send + Sync> FromRequest<S> for SpecBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        JobSpec::parse(&json_body(request).await?).map(Self).map_err(ApiError::InvalidSpec)
    }
}

/// A body that is an evaluation.
pub(super) struct AssessmentSpecBody(pub(super) JobSpec);

impl<S: Send + Sync> FromRequest<S> for AssessmentSpecBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        JobSpec::parse_evaluation(&json_body(request).await?).map(Self).map_err(ApiError::InvalidSpec)
    }
}

/// The body of a request as JSON.
pub(super) async fn json_body(request: Request) -> Result<serde_json::Value, ApiError> {
    if !is_json(request.headers()) {
        return Err(ApiError::UnsupportedMediaType);
    }
    let read = tokio::time::timeout(BODY_TIMEOUT, read(request.into_body()));
    let bytes = read.await.map_err(|_| ApiError::BodyTimeout)??;
    serde_json::from_slice(&bytes).map_err(|error| ApiError::MalformedJson(error.to_string()))
}

fn is_json(headers: &HeaderMap) -> bool {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = declared.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

async fn read(mut body: Body) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    let mut received = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::MalformedJson("it broke off".to_owned()))?;
        let Some(data) = frame.data_ref() else { continue };
        received = received.saturating_add(data.len());
        if received <= LONGEST_BODY {
            bytes.extend_from_slice(data);
        } else if received > MOST_DISCARDED {
            break;
        }
    }
    if received > LONGEST_BODY { Err(ApiError::BodyTooLarge) } else { Ok(bytes) }
}
