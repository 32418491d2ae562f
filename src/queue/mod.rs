//! The durable queue: one trait, [`JobStore`], and its implementation over SQLite.
//!
//! A job is claimed by one UPDATE that hands out a lease and the next attempt number. Every later write of that
//! attempt carries the number, so that a worker whose lease lapsed changes no row. No transaction is open while a
//! job runs. Lease times are taken on the store's own clock.

mod retry;
mod sqlite;

use std::time::Duration;

use async_trait::async_trait;
pub use retry::RetryPolicy;
pub use sqlite::SqliteStore;

use crate::{
    clock::UnixMillis,
    job::{Failure, FailureCode, JobId, JobSpec, Progress, Status},
};

/// A job as the store knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRecord {
    /// Identity.
    pub id: JobId,
    /// What it is asked to do.
    pub spec: JobSpec,
    /// Where it stands.
    pub status: Status,
    /// The last progress reported, while running and after.
    pub progress: Option<Progress>,
    /// How often it was claimed.
    pub attempt: u32,
    /// Whether somebody asked to cancel it and its worker has not stopped yet.
    pub cancel_requested: bool,
    /// When it was submitted.
    pub created_at: UnixMillis,
    /// When it was first claimed.
    pub started_at: Option<UnixMillis>,
    /// When it reached a terminal state.
    pub finished_at: Option<UnixMillis>,
    /// Why it failed, in a failed job.
    pub error: Option<JobError>,
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
}

/// What a beat learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// The lease is renewed: go on.
    Owned,
    /// The lease is renewed, but somebody asked to cancel: stop, then settle as cancelled.
    CancelRequested,
    /// The job belongs to another attempt or is over: stop and write nothing.
    Lost,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Published.
    Succeeded,
    /// The user's cancel took effect.
    Cancelled,
    /// The child said why; the decision inside tells whether it goes back to the queue.
    Failed(Failure),
    /// The child died or stalled without a word. Counts against the job unless a step was finished since the last one.
    Crashed(Failure),
    /// The server is stopping: back to the queue, counted against nobody.
    Released,
}

/// What a cancel did.
#[derive(Clone, Debug, PartialEq)]
pub enum Cancellation {
    /// It was queued and is cancelled now, or it runs and its worker will stop it: the record as it now stands.
    Accepted(JobRecord),
    /// It had already ended: the record.
    AlreadyOver(JobRecord),
    /// There is no such job.
    Unknown,
}

/// Which jobs to list, newest first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listing {
    /// Only jobs submitted before this one (the last of the page before).
    pub after: Option<JobId>,
    /// At most so many.
    pub limit: u32,
    /// Only jobs in this state.
    pub status: Option<Status>,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The jobs, newest first.
    pub jobs: Vec<JobRecord>,
    /// Whether there are more after the last one.
    pub has_more: bool,
}

/// The store failed; the text is for the log, never for a user.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or was not reachable.
    #[error("database: {0}")]
    Database(#[source] sqlx::Error),
    /// The database could not be brought to this version.
    #[error("migration: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The database was brought to a schema that this version does not know.
    #[error(
        "the database belongs to a newer graspd (migration {version} is unknown here): run that version, or restore a copy made before the upgrade"
    )]
    NewerDatabase {
        /// The migration that is unknown.
        version: i64,
    },
    /// The disk under the database is full.
    #[error("the disk under the database is full")]
    DiskFull,
    /// A row holds what this version cannot read.
    #[error("row of job {id}: {what}")]
    Corrupt {
        /// Which job.
        id: String,
        /// What is wrong with it.
        what: String,
    },
    /// The linked SQLite is too old to be trusted with a write-ahead log.
    #[error("SQLite {found} is linked, at least {needed} is needed")]
    OldSqlite {
        /// Version that is linked.
        found: String,
        /// Version that is needed.
        needed: &'static str,
    },
}

/// `SQLITE_FULL`; extended codes carry it in their low byte.
const SQLITE_FULL: u32 = 13;

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        match code.and_then(|code| code.parse::<u32>().ok()) {
            Some(code) if code & 0xff == SQLITE_FULL => Self::DiskFull,
            _ => Self::Database(error),
        }
    }
}

/// Jobs that survive a restart.
#[async_trait]
pub trait JobStore: Send + Sync {
    /// Stores a new job as queued; when this returns, the job is on disk.
    async fn submit(&self, id: JobId, spec: &JobSpec) -> Result<JobRecord, StoreError>;
    /// Finds a job.
    async fn get(&self, id: JobId) -> Result<Option<JobRecord>, StoreError>;
    /// Lists jobs, newest first.
    async fn list(&self, listing: Listing) -> Result<Page, StoreError>;
    /// Cancels a queued job, or asks the worker of a running one to stop.
    async fn cancel(&self, id: JobId) -> Result<Cancellation, StoreError>;
    /// Hands the oldest queued job, or one whose lease lapsed, to `worker` for `lease`. A job whose lease lapsed after a
    /// cancel was asked for becomes cancelled instead.
    async fn claim(&self, worker: &str, lease: Duration) -> Result<Option<Claim>, StoreError>;
    /// Renews the lease of an attempt and records its progress.
    async fn beat(&self, claim: &Claim, progress: Option<&Progress>, lease: Duration) -> Result<Beat, StoreError>;
    /// Records that the attempt finished a step, so that later crashes are counted from there. Does not renew the lease.
    async fn step_finished(&self, claim: &Claim) -> Result<Beat, StoreError>;
    /// Ends an attempt, or sends its job back to the queue as the [`RetryPolicy`] says. `false` when it was not its to
    /// end any more. A cancel that was asked for meanwhile wins over every outcome but `Succeeded`.
    async fn settle(&self, claim: &Claim, outcome: &Outcome) -> Result<bool, StoreError>;
    /// Jobs in each state, all five of them.
    async fn counts(&self) -> Result<Vec<(Status, u64)>, StoreError>;
    /// Whether the store answers; for readiness.
    async fn ping(&self) -> Result<(), StoreError>;
}
