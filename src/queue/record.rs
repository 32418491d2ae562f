//! What a store knows.

use super::Origin;
use crate::{
    clock::UnixMillis,
    job::{EventKind, FailureCode, JobId, JobSpec, Progress, Status},
};

/// A job as the store knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRecord {
    /// Identity.
    pub id: JobId,
    /// Whose it is.
    pub tenant: String,
    /// What it is asked to do.
    pub spec: JobSpec,
    /// Where it stands.
    pub status: Status,
    /// The last progress reported, while running and after.
    pub progress: Option<Progress>,
    /// When that last changed.
    pub progress_at: Option<UnixMillis>,
    /// When the stage of that progress began.
    pub stage_started_at: Option<UnixMillis>,
    /// How often it was claimed.
    pub attempt: u32,
    /// Whether somebody asked to cancel it and its worker has not stopped yet.
    pub cancel_requested: bool,
    /// Whether somebody asked to pause it and its worker has not stopped yet.
    pub pause_requested: bool,
    /// When it was submitted.
    pub created_at: UnixMillis,
    /// When it was first claimed.
    pub started_at: Option<UnixMillis>,
    /// When it reached a terminal state.
    pub finished_at: Option<UnixMillis>,
    /// Why it failed, in a failed job.
    pub error: Option<JobError>,
    /// Least bytes of memory of a slot that may run it; 0 for any.
    pub memory_needed: u64,
    /// Most bytes that a slot of the workers that are up has for a job; `None` where no worker is up.
    pub largest_slot: Option<u64>,
}

/// Why a job failed, as shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    /// Stable code.
    pub code: FailureCode,
    /// For people.
    pub message: String,
}

/// A claimed job: the right to run one attempt of it while the lease lasts.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Which job.
    pub id: JobId,
    /// What it is asked to do.
    pub spec: JobSpec,
    /// The fence: every write of this attempt carries it.
    pub attempt: u32,
    /// The request it came with.
    pub origin: Origin,
}

/// A slot that looks for a job, or, announced, a process whose slots all have as much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its name.
    pub worker: String,
    /// Bytes that a job may use there.
    pub memory: u64,
}

/// Something that happened to a job.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRecord {
    /// Its number: 1, 2, 3, … in each job.
    pub seq: u64,
    /// When.
    pub at: UnixMillis,
    /// What.
    pub kind: EventKind,
    /// More, by kind.
    pub data: serde_json::Value,
}

/// Which jobs to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Only jobs submitted before this one (the last of the page before).
    pub after: Option<JobId>,
    /// At most so many.
    pub limit: u32,
    /// Only jobs in this state.
    pub status: Option<Status>,
    /// Only this tenant's jobs.
    pub tenant: Option<String>,
    /// Only jobs with all these labels, each a key and its value.
    pub metadata: std::collections::BTreeMap<String, String>,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The jobs, newest first.
    pub jobs: Vec<JobRecord>,
    /// Whether there are more after the last one.
    pub has_more: bool,
}
