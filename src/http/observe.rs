//! Around every request: an id, a span, a log line and a measurement.

use std::time::Instant;

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, request::Parts},
    middleware::Next,
    response::Response,
};
use tracing::Instrument;

use super::{ApiError, ApiState};
use crate::{queue::Origin, telemetry};

/// Histogram of the time until a reply's head is ready, by path, method and status.
pub const REQUEST_SECONDS: &str = "graspd_http_request_duration_seconds";
/// Upper bounds of its buckets, in seconds.
pub const REQUEST_SECONDS_BUCKETS: [f64; 9] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST_REQUEST_ID: usize = 128;

/// The request's id and its trace, for the job that comes of it.
pub(super) struct RequestOrigin(pub(super) Origin);

impl<S: Send + Sync> FromRequestParts<S> for RequestOrigin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self(parts.extensions.get::<Origin>().cloned().unwrap_or_default()))
    }
}

pub(super) async fn observe(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    let id = request_id(&state, &request);
    let traceparent = traceparent(request.headers()).map(str::to_owned);
    let method = method_label(request.method());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    // Paths that match nothing share one label: a scanner must not fill the registry.
    let path = matched.as_ref().map_or("unmatched", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("http.request", request.id = ?id, traceparent, http.method = method, http.path = request.uri().path());
    telemetry::follow(&span, traceparent.as_deref());
    let traceparent = telemetry::traceparent(&span, traceparent);
    let request_id = id.to_str().ok().map(str::to_owned);
    request.extensions_mut().insert(Origin { request_id, traceparent });
    let started = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let (seconds, status) = (started.elapsed().as_secs_f64(), response.status().as_u16());
    span.in_scope(|| tracing::info!(http.status = status, http.seconds = seconds, "answered"));
    metrics::histogram!(REQUEST_SECONDS, "path" => path, "method" => method, "status" => status.to_string())
        .record(seconds);
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The client's own id where it is fit for a log, else a new one.
fn request_id(state: &ApiState, request: &Request) -> HeaderValue {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_sane =
        |id: &&HeaderValue| (1..=LONGEST_REQUEST_ID).contains(&id.as_bytes().len()) && id.as_bytes().iter().all(plain);
    let made = || HeaderValue::from_str(&state.ids.request_id().to_string());
    match request.headers().get(REQUEST_ID).filter(is_sane) {
        Some(id) => id.clone(),
        None => made().unwrap_or(HeaderValue::from_static("none")),
    }
}

/// The trace the request is part of (W3C Trace Context, version 00), if it names one.
fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let lower =
        |part: &str, length| part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<_> = text.split('-').collect();
    let [version, trace, parent, flags] = parts.as_slice() else { return None };
    let is_set = |part: &str| part.bytes().any(|byte| byte != b'0');
    let valid = *version == "00" && lower(trace, 32) && lower(parent, 16) && lower(flags, 2);
    (valid && is_set(trace) && is_set(parent)).then_some(text)
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_trace_is_carried_on() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (text, kept) in [
            (good, true),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("hello", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_static(text));
            assert_eq!(traceparent(&headers), kept.then_some(text), "{text}");
        }
    }
}
