//! `Prefer: wait=N` (RFC 7240): answer when there is something to say, or after N seconds.

use std::time::Duration;

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, HeaderValue, request::Parts},
    response::Response,
};
use tokio::time::{Instant, timeout_at};

use super::{ApiError, ApiState};
use crate::{job::JobId, queue::JobRecord};

/// Longest wait, in seconds: proxies give up on a silent request soon after.
const LONGEST: u64 = 60;
/// Another process may write to the store, of which this one is not told: look at least this often.
const LOOK: Duration = Duration::from_secs(1);
const APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How long the client would like to wait, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefer {
    wait: Option<u64>,
}

impl<S: Send + Sync> FromRequestParts<S> for Prefer {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let values = parts.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        Ok(Self { wait: values.flat_map(|value| value.split(',')).find_map(wait) })
    }
}

/// The N of a preference `wait=N`. A preference that is not understood is ignored, as the standard says.
fn wait(preference: &str) -> Option<u64> {
    let (name, value) = preference.split(';').next()?.split_once('=')?;
    let seconds: u64 = value.trim().trim_matches('"').parse().ok()?;
    name.trim().eq_ignore_ascii_case("wait").then_some(seconds.min(LONGEST))
}

impl Prefer {
    /// Looks at a job until `enough` is true of it, the time is over or the server stops; gives what it saw last.
    pub(super) async fn wait(
        self,
        state: &ApiState,
        id: JobId,
        enough: impl Fn(&JobRecord) -> bool,
    ) -> Result<JobRecord, ApiError> {
        let deadline = Instant::now() + Duration::from_secs(self.wait.unwrap_or(0));
        let mut changes = state.store.changes();
        loop {
            let record = state.store.get(id).await?.ok_or(ApiError::JobNotFound)?;
            if enough(&record) || Instant::now() >= deadline || state.draining.is_draining() {
                return Ok(record);
            }
            pause(state, &mut changes, deadline.min(Instant::now() + LOOK)).await;
        }
    }

    /// Says in the reply that the wish was granted.
    pub(super) fn apply(self, mut response: Response) -> Response {
        let applied = self.wait.and_then(|seconds| HeaderValue::from_str(&format!("wait={seconds}")).ok());
        if let Some(applied) = applied {
            response.headers_mut().insert(APPLIED, applied);
        }
        response
    }
}

/// Waits until something was written, `deadline` has come or the server stops.
pub(super) async fn pause(state: &ApiState, changes: &mut tokio::sync::watch::Receiver<u64>, deadline: Instant) {
    let something = async {
        tokio::select! {
            // An error means that the store is gone; the next look will say so.
            _ = changes.changed() => {}
            () = state.draining.started() => {}
        }
    };
    // An error means that the time is over, which is as good.
    let _ = timeout_at(deadline, something).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_understood_among_other_preferences_and_has_a_limit() {
        for (preference, seconds) in [
            ("wait=10", Some(10)),
            (" Wait = \"5\" ; foo", Some(5)),
            ("wait=9999", Some(60)),
            ("wait=-1", None),
            ("wait", None),
            ("respond-async", None),
        ] {
            assert_eq!(wait(preference), seconds, "{preference}");
        }
    }
}
