//! From requests to the words of the service. What does not parse never reaches a handler.

use std::{collections::HashMap, str::FromStr, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, header, request::Parts},
};
use http_body_util::BodyExt;

use super::ApiError;
use crate::{
    job::{JobId, JobSpec, Status},
    queue::Listing,
};

/// Bytes in the body of a request.
pub(super) const LONGEST_BODY: usize = 64 * 1024;
/// How long a body may take to arrive.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// So much of an over-long body is read and dropped: a client that is still sending would not see the reply.
const MOST_DISCARDED: usize = 1024 * 1024;

const DEFAULT_LIMIT: u32 = 20;
const LARGEST_LIMIT: u32 = 100;

/// `{id}` of the path.
pub(super) struct PathId(pub(super) JobId);

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

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        job_id(&path_parameters(parts, state).await?).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ArtifactPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let mut parameters = path_parameters(parts, state).await?;
        let id = job_id(&parameters)?;
        Ok(Self { id, name: parameters.remove("name").unwrap_or_default() })
    }
}

/// The query of a list of jobs.
pub(super) struct ListQuery(pub(super) Listing);

impl<S: Send + Sync> FromRequestParts<S> for ListQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let pairs = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Query(pairs) = pairs.map_err(|error| invalid("query", error.body_text()))?;
        let (mut after, mut limit, mut status) = (None, None, None);
        for (name, value) in &pairs {
            match name.as_str() {
                "after" => once("after", &mut after, value.parse::<JobId>())?,
                "limit" => once("limit", &mut limit, parse_limit(value))?,
                "status" => once("status", &mut status, Status::from_str(value))?,
                other => return Err(invalid(other, "unknown parameter: after, limit and status are known")),
            }
        }
        Ok(Self(Listing { after, limit: limit.unwrap_or(DEFAULT_LIMIT), status }))
    }
}

fn invalid(field: &str, message: impl Into<String>) -> ApiError {
    ApiError::InvalidQuery { field: field.to_owned(), message: message.into() }
}

fn once<T, E: ToString>(field: &str, slot: &mut Option<T>, value: Result<T, E>) -> Result<(), ApiError> {
    let value = value.map_err(|error| invalid(field, error.to_string()))?;
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(invalid(field, "is given twice")),
    }
}

fn parse_limit(text: &str) -> Result<u32, String> {
    let limit = text.parse().ok().filter(|limit| (1..=LARGEST_LIMIT).contains(limit));
    limit.ok_or_else(|| format!("'{text}' is not a number from 1 to {LARGEST_LIMIT}"))
}

/// A body that is a job.
pub(super) struct SpecBody(pub(super) JobSpec);

impl<S: Send + Sync> FromRequest<S> for SpecBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::UnsupportedMediaType);
        }
        let read = tokio::time::timeout(BODY_TIMEOUT, read(request.into_body()));
        let bytes = read.await.map_err(|_| ApiError::BodyTimeout)??;
        let value = serde_json::from_slice(&bytes).map_err(|error| ApiError::MalformedJson(error.to_string()))?;
        JobSpec::parse(&value).map(Self).map_err(ApiError::InvalidSpec)
    }
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
