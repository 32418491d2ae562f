//! Time and ids as values that are passed in, so that tests decide them.

use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::job::JobId;

/// Milliseconds since 1970-01-01T00:00:00Z.
pub type UnixMillis = i64;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> UnixMillis;
}

/// Makes ids that were never made before.
pub trait Ids: Send + Sync {
    /// A new job id; ids of one process sort by the time they were made.
    fn job_id(&self) -> JobId;
    /// A new id for a request.
    fn request_id(&self) -> Uuid;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis::try_from(since.as_millis()).unwrap_or(UnixMillis::MAX)
    }
}

/// Random ids from the operating system's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    #[expect(clippy::disallowed_methods, reason = "the one place that makes ids")]
    fn job_id(&self) -> JobId {
        JobId::new(Uuid::now_v7())
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that makes ids")]
    fn request_id(&self) -> Uuid {
        Uuid::new_v4()
    }
}
