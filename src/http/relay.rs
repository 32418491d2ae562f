//! Published files that lie in an object store: passed on as they come, whole or in a range.

use std::ops::Range;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::ApiError;
use crate::artifact::ObjectContent;

/// Answers a GET or HEAD of an object of `length` bytes.
pub(super) async fn relay(object: &ObjectContent, length: u64, request: Request<Body>) -> Result<Response, ApiError> {
    let asked = range(request.headers(), length).map_err(|()| ApiError::RangeNotSatisfiable {
        content_range: HeaderValue::from_str(&format!("bytes */{length}")).ok(),
    })?;
    let sent = asked.clone().unwrap_or(0..length);
    let body = if request.method() == Method::HEAD || sent.is_empty() {
        Body::empty()
    } else {
        Body::from_stream(object.read(sent.clone()).await?)
    };
    let status = if asked.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, (sent.end - sent.start).into());
    if asked.is_some() {
        let content_range = format!("bytes {}-{}/{length}", sent.start, sent.end.saturating_sub(1));
        headers.extend(HeaderValue::from_str(&content_range).ok().map(|value| (header::CONTENT_RANGE, value)));
    }
    Ok(response)
}

/// The one range that is asked for. One that is not understood, or several, count as none (RFC 9110, 14.2).
fn range(headers: &HeaderMap, length: u64) -> Result<Option<Range<u64>>, ()> {
    let asked = headers.get(header::RANGE).and_then(|value| value.to_str().ok()).and_then(|text| {
        let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
        let number = |text: &str| if text.is_empty() { Some(None) } else { text.trim().parse::<u64>().ok().map(Some) };
        Some((number(first)?, number(last)?))
    });
    let found = match asked {
        None | Some((None, None)) => return Ok(None),
        Some((Some(first), Some(last))) if last < first => return Ok(None),
        Some((Some(first), last)) => first..last.map_or(length, |last| last.saturating_add(1).min(length)),
        Some((None, Some(suffix))) => length.saturating_sub(suffix)..length,
    };
    if found.is_empty() { Err(()) } else { Ok(Some(found)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_understood_or_left_alone() {
        for (text, expected) in [
            ("bytes=0-3", Ok(Some(0..4))),
            ("bytes=4-", Ok(Some(4..10))),
            ("bytes=-3", Ok(Some(7..10))),
            ("bytes=8-99", Ok(Some(8..10))),
            ("bytes=-99", Ok(Some(0..10))),
            ("bytes=10-", Err(())),
            ("bytes=-0", Err(())),
            ("bytes=3-1", Ok(None)),
            ("bytes=0-1,4-5", Ok(None)),
            ("lines=0-1", Ok(None)),
            ("bytes=-", Ok(None)),
        ] {
            let headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static(text))]);
            assert_eq!(range(&headers, 10), expected, "{text}");
        }
        assert_eq!(range(&HeaderMap::new(), 10), Ok(None));
    }
}
