//! Around every request: an id, a span, a log line and a measurement.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method},
    middleware::Next,
    response::Response,
};
use tracing::Instrument;

use super::ApiState;

/// Histogram of the time until a reply's head is ready, by path, method and status.
pub const REQUEST_SECONDS: &str = "graspd_http_request_duration_seconds";
/// Upper bounds of its buckets, in seconds.
pub const REQUEST_SECONDS_BUCKETS: [f64; 9] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST_REQUEST_ID: usize = 128;

pub(super) async fn observe(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let id = request_id(&state, &request);
    let method = method_label(request.method());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    // Paths that match nothing share one label: a scanner must not fill the registry.
    let path = matched.as_ref().map_or("unmatched", MatchedPath::as_str).to_owned();
    let span =
        tracing::info_span!("http.request", request.id = ?id, http.method = method, http.path = request.uri().path());
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
