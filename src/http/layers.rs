//! What every request goes through: an id, a span, a measurement, a limit, and a problem instead of a panic.

use std::{any::Any, time::Instant};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, StatusCode},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument as _;

use super::{AppState, LARGEST_BODY, Problem};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST_REQUEST_ID: usize = 128;

/// Puts all layers around the routes.
pub(super) fn wrap(routes: Router<AppState>, state: &AppState) -> Router<AppState> {
    routes
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(state.clone(), observe))
}

async fn observe(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let id = request_id(&request, &state);
    let method = request.method().clone();
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| "unknown".to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!("request", request.id = ?id, http.method = %method, http.route = route);
    let start = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let seconds = start.elapsed().as_secs_f64();
    let status = response.status().as_u16();
    span.in_scope(|| tracing::debug!(http.status = status, seconds, "answered"));
    let labels = [("method", method.to_string()), ("route", route), ("status", status.to_string())];
    metrics::histogram!("graspd_http_request_seconds", &labels).record(seconds);
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The caller's own id where it is a sane one, else a new one.
fn request_id(request: &Request, state: &AppState) -> HeaderValue {
    let sane = |value: &&HeaderValue| !value.is_empty() && value.len() <= LONGEST_REQUEST_ID && value.to_str().is_ok();
    let given = request.headers().get(REQUEST_ID).filter(sane).cloned();
    let made = || HeaderValue::from_str(&state.ids.request_id().to_string());
    given.map_or_else(made, Ok).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let words = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = words.unwrap_or("?"), "a handler panicked");
    Problem::internal().into_response()
}

pub(super) async fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing at this address; /openapi.yaml lists what there is",
    )
}

pub(super) async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this address does not answer that method")
}
