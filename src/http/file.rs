//! Published files over HTTP: streamed, in ranges, with the SHA-256 as a strong entity tag.

use std::{path::Path, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tower_http::services::ServeFile;

use super::ApiError;
use crate::{
    artifact::{Artifact, ArtifactError, Content},
    http::{ApiState, relay},
    job::{JobId, Status},
};

/// What the file service is to see of a request; entity tags are compared here, because its own are made of times.
const PASSED_ON: [HeaderName; 2] = [header::RANGE, header::IF_UNMODIFIED_SINCE];

/// How long a signed URL may be used.
const SIGNED_FOR: Duration = Duration::from_mins(10);

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// Answers a GET or HEAD of the file `name` of a job that has succeeded.
pub(super) async fn serve(
    state: &ApiState,
    id: JobId,
    name: &str,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    published(state, id).await?;
    let (content, artifact) = state.artifacts.open(id, name).await?.ok_or(ApiError::ArtifactNotFound)?;
    let tag = format!("\"{}\"", artifact.sha256);
    if !preconditions_hold(request.headers(), &tag) {
        return Err(ApiError::PreconditionFailed);
    }
    let mut response = if is_known(request.headers(), &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        match content {
            Content::File(path) => read(&path, request, &tag).await?,
            Content::Object(object) => relay::relay(&object, artifact.bytes, passed_on(&request, &tag)).await?,
        }
    };
    describe(response.headers_mut(), &artifact, &tag);
    Ok(response)
}

/// Sends the client to the object store itself, where the file lies in one that can sign such a URL.
pub(super) async fn redirect(state: &ApiState, id: JobId, name: &str) -> Result<Option<Response>, ApiError> {
    published(state, id).await?;
    let (content, _) = state.artifacts.open(id, name).await?.ok_or(ApiError::ArtifactNotFound)?;
    let Content::Object(object) = content else { return Ok(None) };
    let url = object.presigned(SIGNED_FOR).await?.and_then(|url| HeaderValue::from_str(&url).ok());
    let no_store = HeaderValue::from_static("no-store");
    let reply = |url| {
        let headers = [(header::LOCATION, url), (header::CACHE_CONTROL, no_store)];
        (StatusCode::TEMPORARY_REDIRECT, headers).into_response()
    };
    Ok(url.map(reply))
}

/// Whether a job has published; why not, where it has not.
pub(super) async fn published(state: &ApiState, id: JobId) -> Result<(), ApiError> {
    let record = state.store.get(id).await?.ok_or(ApiError::JobNotFound)?;
    match record.status {
        Status::Succeeded => Ok(()),
        Status::Queued | Status::Running | Status::Paused => Err(ApiError::JobNotFinished(record.status)),
        Status::Failed | Status::Cancelled => Err(ApiError::JobNotSucceeded(record.status)),
    }
}

async fn read(path: &Path, request: Request<Body>, tag: &str) -> Result<Response, ApiError> {
    let mut service = ServeFile::new(path).ignore_multi_range_requests(true);
    let response = service
        .try_call(passed_on(&request, tag))
        .await
        .map_err(|source| ApiError::Artifacts(ArtifactError::Io { path: path.to_owned(), source }))?;
    match response.status() {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response.map(Body::new)),
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let content_range = response.headers().get(header::CONTENT_RANGE).cloned();
            Err(ApiError::RangeNotSatisfiable { content_range })
        }
        StatusCode::PRECONDITION_FAILED => Err(ApiError::PreconditionFailed),
        _ => Err(ApiError::ArtifactNotFound),
    }
}

fn passed_on(request: &Request<Body>, tag: &str) -> Request<Body> {
    let mut passed = Request::new(Body::empty());
    *passed.method_mut() = request.method().clone();
    for name in PASSED_ON {
        if let Some(value) = request.headers().get(&name) {
            passed.headers_mut().insert(name, value.clone());
        }
    }
    // A range of another version of the file is of no use: the whole file then.
    if request.headers().get(header::IF_RANGE).is_some_and(|value| value.as_bytes() != tag.as_bytes()) {
        passed.headers_mut().remove(header::RANGE);
    }
    passed
}

/// Whether the list of entity tags in `name` holds `tag` or `*`; `None` when the header is absent.
fn lists(headers: &HeaderMap, name: &HeaderName, tag: &str) -> Option<bool> {
    let mut values = headers.get_all(name).iter().peekable();
    values.peek()?;
    Some(values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|listed| {
        let listed = listed.trim();
        listed == "*" || listed == tag || (*name == header::IF_NONE_MATCH && listed.strip_prefix("W/") == Some(tag))
    }))
}

fn preconditions_hold(headers: &HeaderMap, tag: &str) -> bool {
    lists(headers, &header::IF_MATCH, tag).unwrap_or(true)
}

pub(super) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    lists(headers, &header::IF_NONE_MATCH, tag).unwrap_or(false)
}

fn describe(headers: &mut HeaderMap, artifact: &Artifact, tag: &str) {
    let file_name = artifact.name.rsplit('/').next().unwrap_or_default();
    let fields = [
        (header::ETAG, tag),
        (header::CONTENT_DISPOSITION, &disposition(file_name)),
        (REPR_DIGEST, &repr_digest(&artifact.sha256)),
    ];
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // A published file never changes.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, immutable, max-age=31536000"));
}

/// The SHA-256 of the whole file (RFC 9530), also where only a range of it is sent.
fn repr_digest(sha256: &str) -> String {
    let digits = sha256.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok());
    let bytes: Vec<u8> = digits.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
    format!("sha-256=:{}:", BASE64.encode(bytes))
}

/// A plain name for old clients and `curl -OJ`, and the exact one (RFC 6266) where they differ.
pub(super) fn disposition(file_name: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%') { c } else { '_' };
    let fallback: String = file_name.chars().map(plain).collect();
    if fallback == file_name {
        return format!("attachment; filename=\"{file_name}\"");
    }
    let exact = utf8_percent_encode(file_name, NON_ALPHANUMERIC);
    format!("attachment; filename=\"{fallback}\"; filename*=UTF-8''{exact}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_cannot_break_out_of_its_header() {
        assert_eq!(disposition("model.safetensors"), "attachment; filename=\"model.safetensors\"");
        assert_eq!(disposition("a\"b"), "attachment; filename=\"a_b\"; filename*=UTF-8''a%22b");
    }

    #[test]
    fn a_digest_is_the_bytes_and_not_their_digits() {
        let sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(repr_digest(sha256), "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:");
    }

    #[test]
    fn entity_tags_are_found_in_lists() {
        let mut headers = HeaderMap::new();
        assert_eq!(lists(&headers, &header::IF_NONE_MATCH, "\"a\""), None);
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"b\", W/\"a\""));
        assert_eq!(lists(&headers, &header::IF_NONE_MATCH, "\"a\""), Some(true));
        headers.insert(header::IF_MATCH, HeaderValue::from_static("W/\"a\""));
        assert_eq!(lists(&headers, &header::IF_MATCH, "\"a\""), Some(false), "a weak tag matches nothing strongly");
    }
}
