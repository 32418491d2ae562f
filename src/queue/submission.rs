//! What a store is asked to take, and what it says.

use super::JobRecord;
use crate::job::{JobId, JobSpec};

/// The tenant of a service without keys.
pub const DEFAULT_TENANT: &str = "default";

/// A job to be stored.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Its identity, unless an earlier job answers for the same key.
    pub id: JobId,
    /// What it is asked to do.
    pub spec: JobSpec,
    /// Whose it is.
    pub tenant: String,
    /// The client's key against making it twice.
    pub idempotency: Option<Idempotency>,
    /// How many jobs may wait.
    pub limits: QueueLimits,
    /// The request it came with.
    pub origin: Origin,
}

impl Submission {
    /// A job of the default tenant that is always taken.
    pub fn new(id: JobId, spec: JobSpec) -> Self {
        Self {
            id,
            spec,
            tenant: DEFAULT_TENANT.to_owned(),
            idempotency: None,
            limits: QueueLimits::NONE,
            origin: Origin::default(),
        }
    }
}

/// A client's key, and what it was sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// As the client sent it.
    pub key: String,
    /// SHA-256 of what was asked, in hexadecimal.
    pub fingerprint: String,
}

/// How many jobs may wait at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// In the whole service.
    pub service: u32,
    /// Of one tenant.
    pub tenant: u32,
}

impl QueueLimits {
    /// As many as there is room for.
    pub const NONE: Self = Self { service: u32::MAX, tenant: u32::MAX };
}

/// The HTTP request a job came with, so that its log lines can be found by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// `X-Request-Id`.
    pub request_id: Option<String>,
    /// The trace context of the request (W3C).
    pub traceparent: Option<String>,
}

/// What became of a submission.
#[derive(Clone, Debug, PartialEq)]
pub enum Submitted {
    /// It is on disk.
    Accepted(JobRecord),
    /// The key made this job before, for the same request.
    Replayed(JobRecord),
    /// The key was sent with another request before.
    KeyReused,
    /// The tenant has as many jobs waiting as it may.
    TenantFull,
    /// The service has as many jobs waiting as it may.
    ServiceFull,
}
