//! Who may come in: keys, scopes, tenants, and how often anybody may ask.
//!
//! Without any key the service is open, and everybody is the default tenant; it then listens on loopback only, unless
//! it is told otherwise. Once a key was made every request below `/v1` and for `/metrics` needs one.

mod caller;
mod limiter;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
pub(super) use caller::Caller;
pub use limiter::RateLimit;
pub(super) use limiter::{Asker, Limiter};

use super::{ApiError, ApiState};
use crate::{
    job::Scope,
    queue::{DEFAULT_TENANT, KeyHash},
};

/// Who is at the other end of the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// What the gate needs.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) state: ApiState,
    pub(super) limiter: Limiter,
    /// Whether there was no key when that was last known: a store that is down must not hide the metrics.
    pub(super) open: Arc<AtomicBool>,
}

/// Lets a request through to its handler, with its [`Caller`], or answers it here.
pub(super) async fn admit(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let Some(scope) = needed_scope(request.method(), request.uri().path()) else {
        return next.run(request).await;
    };
    let (mut parts, body) = request.into_parts();
    match gate.caller(&parts, scope).await {
        Ok(caller) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(error) => error.into_response(),
    }
}

/// What a key must allow for a request; `None` for what is open to all: health, version, description, the page.
///
/// It is decided by path and method, so that no new endpoint is open by mistake.
fn needed_scope(method: &Method, path: &str) -> Option<Scope> {
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let first = path.strip_prefix("/v1/").map(|rest| rest.split('/').next().unwrap_or_default());
    match (path, first, reads) {
        ("/metrics", ..) => Some(Scope::MetricsRead),
        (_, Some("datasets"), true) => Some(Scope::DatasetsRead),
        (_, Some("datasets"), false) => Some(Scope::DatasetsWrite),
        // A plan changes nothing.
        (_, Some("plans"), _) | (_, Some(_), true) => Some(Scope::JobsRead),
        (_, Some(_), false) => Some(Scope::JobsWrite),
        (_, None, _) => None,
    }
}

impl Gate {
    async fn caller(&self, parts: &Parts, scope: Scope) -> Result<Caller, ApiError> {
        if let Some(Peer(address)) = parts.extensions.get::<Peer>() {
            self.limiter.check(&Asker::address(address.ip()))?;
        }
        let caller = match bearer(&parts.headers)? {
            Some(key) => self.keyed(key).await?,
            None if self.is_open(scope).await? => anonymous(&parts.headers)?,
            None => return Err(ApiError::KeyNeeded),
        };
        if caller.may(scope) { Ok(caller) } else { Err(ApiError::ScopeNeeded(scope)) }
    }

    async fn is_open(&self, scope: Scope) -> Result<bool, ApiError> {
        match self.state.keys.has_keys().await {
            Ok(has_keys) => {
                self.open.store(!has_keys, Ordering::Relaxed);
                Ok(!has_keys)
            }
            Err(_) if scope == Scope::MetricsRead && self.open.load(Ordering::Relaxed) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    async fn keyed(&self, key: &str) -> Result<Caller, ApiError> {
        let found = self.state.keys.valid_key(&KeyHash::of(key)).await?;
        let record = found.ok_or(ApiError::InvalidKey)?;
        self.limiter.check(&Asker::Key(record.id.clone()))?;
        Ok(Caller { tenant: record.tenant, scopes: record.scopes })
    }
}

/// A page of another site must not speak for the person at this machine's browser.
fn anonymous(headers: &HeaderMap) -> Result<Caller, ApiError> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if matches!(site, Some(b"cross-site" | b"same-site")) {
        return Err(ApiError::ForeignSite);
    }
    Ok(Caller { tenant: DEFAULT_TENANT.to_owned(), scopes: Scope::ALL.to_vec() })
}

/// The key of `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().map_err(|_| ApiError::InvalidKey)?;
    let (scheme, key) = text.split_once(' ').ok_or(ApiError::InvalidKey)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(Some(key.trim())) } else { Err(ApiError::InvalidKey) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_below_v1_needs_a_scope() {
        for (method, path, scope) in [
            (Method::GET, "/v1/jobs", Some(Scope::JobsRead)),
            (Method::POST, "/v1/jobs", Some(Scope::JobsWrite)),
            (Method::DELETE, "/v1/jobs/1", Some(Scope::JobsWrite)),
            (Method::POST, "/v1/plans", Some(Scope::JobsRead)),
            (Method::POST, "/v1/datasets", Some(Scope::DatasetsWrite)),
            (Method::GET, "/v1/datasets/ds_1", Some(Scope::DatasetsRead)),
            (Method::POST, "/v1/something/new", Some(Scope::JobsWrite)),
            (Method::GET, "/metrics", Some(Scope::MetricsRead)),
            (Method::GET, "/livez", None),
            (Method::GET, "/", None),
        ] {
            assert_eq!(needed_scope(&method, path), scope, "{method} {path}");
        }
    }
}
