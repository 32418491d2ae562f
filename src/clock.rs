//! Time and ids as values that are passed in, so that tests decide them.

use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::job::{DatasetId, JobId};

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
    /// A new id for an uploaded data set.
    fn dataset_id(&self) -> DatasetId;
    /// A new id for a request.
    fn request_id(&self) -> Uuid;
    /// 32 bytes that nobody can guess: 244 of their bits are random.
    fn secret(&self) -> [u8; 32];
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

    #[expect(clippy::disallowed_methods, reason = "the one place that makes ids")]
    fn dataset_id(&self) -> DatasetId {
        DatasetId::new(Uuid::now_v7())
    }

    fn secret(&self) -> [u8; 32] {
        let halves = [self.request_id(), self.request_id()].map(Uuid::into_bytes);
        std::array::from_fn(|index| halves[index / 16][index % 16])
    }
}
