//! The durable queue: one trait, [`JobStore`], and its implementations over SQLite and PostgreSQL.
//!
//! A job is claimed by one UPDATE that hands out a lease and the next attempt number. Every later write of that
//! attempt carries the number, so that a worker whose lease lapsed changes no row. No transaction is open while a
//! job runs. Lease times are taken on the store's own clock.

mod datasets;
mod keys;
mod postgres;
mod record;
mod retry;
mod row;
mod sqlite;
mod store;
mod submission;
mod transfer;
mod webhooks;

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
pub use datasets::{DatasetRecord, DatasetStore};
pub use keys::{KEY_PREFIX, KeyHash, KeyRecord, KeyStore, NewKey};
pub use postgres::PostgresStore;
pub use record::{Claim, EventRecord, JobError, JobRecord, Listing, Offer, Page};
pub use retry::RetryPolicy;
pub use sqlite::SqliteStore;
use sqlx::postgres::PgDatabaseError;
pub use store::{Store, is_postgres, open, open_existing};
pub use submission::{DEFAULT_TENANT, Idempotency, Origin, QueueLimits, Submission, Submitted};
use tokio::sync::watch;
pub use transfer::{Moved, export, import};
pub use webhooks::{Delivery, WebhookStore};

use crate::job::{Failure, JobId, JobSpec, Progress, Status};

/// What a beat learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// The lease is renewed: go on.
    Owned,
    /// The lease is renewed, but somebody asked to cancel: stop, then settle as cancelled.
    CancelRequested,
    /// The lease is renewed, but somebody asked to pause: stop at the next finished step, then settle as paused.
    PauseRequested,
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
    /// The user's pause took effect.
    Paused,
    /// The child said why; the decision inside tells whether it goes back to the queue.
    Failed(Failure),
    /// The child died or stalled without a word. Counts against the job unless a step was finished since the last one.
    Crashed(Failure),
    /// The server is stopping: back to the queue, counted against nobody.
    Released,
}

/// What a cancel, a pause or a resume did.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It took effect, or the worker was asked: the record as it now stands. Asking twice is no mistake.
    Accepted(JobRecord),
    /// The job has ended and cannot be changed that way: the record.
    AlreadyOver(JobRecord),
    /// There is no such job.
    Unknown,
}

/// What a deletion did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// The record is gone, with its events.
    Deleted,
    /// The job has not ended, and stays.
    Active(Status),
    /// There is no such job.
    Unknown,
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
    /// The database took a question and gave no answer.
    #[error("the database did not answer for {seconds} s")]
    Silent {
        /// How long it was waited for.
        seconds: u64,
    },
    /// Only a database in a file is copied by this program.
    #[error("a PostgreSQL database is copied with pg_dump, or by its server's own means of backup")]
    NotAFile,
    /// The disk under the database is full.
    #[error("the disk under the database is full")]
    DiskFull,
    /// The file at the database's place is not one of ours.
    #[error("{path} {what}: restore a backup, or name another file")]
    Unusable {
        /// The file.
        path: std::path::PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// There is no database to read.
    #[error("{0}: there is no database")]
    Missing(std::path::PathBuf),
    /// What SQLite itself finds wrong.
    #[error("the database is damaged ({0}): restore a backup")]
    Damaged(String),
    /// A backup never takes the place of a file.
    #[error("{0} is there already: name another file")]
    BackupExists(std::path::PathBuf),
    /// A backup cannot be brought to the disk.
    #[error("{path}: {source}")]
    Backup {
        /// The file.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// An import takes the place of nothing.
    #[error("its table {table} has rows already: import into an empty database")]
    NotEmpty {
        /// A table that is not empty.
        table: &'static str,
    },
    /// A file of rows cannot be written, or holds a line that cannot be taken.
    #[error("{}{what}", line.map(|line| format!("line {line} of the file: ")).unwrap_or_default())]
    Transfer {
        /// Which line, counted from 1.
        line: Option<u64>,
        /// Why not.
        what: String,
    },
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

/// `SQLITE_FULL`.
const SQLITE_FULL: u32 = 13;
/// `disk_full` of PostgreSQL.
const POSTGRES_FULL: &str = "53100";

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let full = match error.as_database_error() {
            Some(said) if said.try_downcast_ref::<PgDatabaseError>().is_some() => {
                said.code().is_some_and(|code| code == POSTGRES_FULL)
            }
            _ => primary_code(&error) == Some(SQLITE_FULL),
        };
        if full { Self::DiskFull } else { Self::Database(error) }
    }
}

/// SQLite's primary result code: the low byte of what it says.
fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code)?;
    Some(code.parse::<u32>().ok()? & 0xff)
}

/// Jobs that survive a restart.
#[async_trait]
pub trait JobStore: Send + Sync {
    /// Stores a new job as queued, unless a limit or an earlier job with the same key stands against it; when this
    /// returns, the job is on disk.
    async fn enqueue(&self, submission: &Submission) -> Result<Submitted, StoreError>;
    /// Stores a job of the default tenant, whatever waits already.
    async fn submit(&self, id: JobId, spec: &JobSpec) -> Result<JobRecord, StoreError> {
        match self.enqueue(&Submission::new(id, spec.clone())).await? {
            Submitted::Accepted(record) | Submitted::Replayed(record) => Ok(record),
            Submitted::KeyReused | Submitted::TenantFull | Submitted::ServiceFull => {
                Err(StoreError::Corrupt { id: id.to_string(), what: "refused without a limit".to_owned() })
            }
        }
    }
    /// Finds a job.
    async fn get(&self, id: JobId) -> Result<Option<JobRecord>, StoreError>;
    /// Lists jobs, newest first.
    async fn list(&self, listing: &Listing) -> Result<Page, StoreError>;
    /// The events of a job with numbers above `after`, at most `limit`, in order.
    async fn events(&self, id: JobId, after: u64, limit: u32) -> Result<Vec<EventRecord>, StoreError>;
    /// Cancels a waiting job, or asks the worker of a running one to stop.
    async fn cancel(&self, id: JobId) -> Result<Change, StoreError>;
    /// Pauses a waiting job, or asks the worker of a running one to stop at its next finished step.
    async fn pause(&self, id: JobId) -> Result<Change, StoreError>;
    /// Sends a paused or failed job back to the queue, where it goes on from its last finished step; takes back a pause
    /// that was only asked for.
    async fn resume(&self, id: JobId) -> Result<Change, StoreError>;
    /// Removes a job that has ended, with its events. Its files are not the store's.
    async fn delete(&self, id: JobId) -> Result<Deletion, StoreError>;
    /// [`Self::claim_for`] a slot that has room for any job.
    async fn claim(&self, worker: &str, lease: Duration) -> Result<Option<Claim>, StoreError> {
        self.claim_for(&Offer { worker: worker.to_owned(), memory: u64::MAX }, lease).await
    }
    /// Hands a job whose lease lapsed, or one that is queued, to a slot for `lease`. The tenant with the fewest running jobs
    /// goes first, of several the one that was served longest ago; of its jobs the one of the highest priority, of
    /// several the oldest. A job whose lease lapsed after a cancel or a pause was asked for becomes cancelled or paused
    /// instead.
    async fn claim_for(&self, offer: &Offer, lease: Duration) -> Result<Option<Claim>, StoreError>;
    /// Tells that a worker is up, for the next minute.
    async fn announce(&self, offer: &Offer) -> Result<(), StoreError>;
    /// Tells that a worker is up no more.
    async fn withdraw(&self, worker: &str) -> Result<(), StoreError>;
    /// Renews the lease of an attempt and records its progress.
    async fn beat(&self, claim: &Claim, progress: Option<&Progress>, lease: Duration) -> Result<Beat, StoreError>;
    /// Records that the attempt finished a step, so that later crashes are counted from there. Does not renew the lease.
    async fn step_finished(&self, claim: &Claim) -> Result<Beat, StoreError>;
    /// Ends an attempt, or sends its job back to the queue as the [`RetryPolicy`] says. `false` when it was not its to
    /// end any more. A cancel that was asked for meanwhile wins over every outcome but `Succeeded`.
    async fn settle(&self, claim: &Claim, outcome: &Outcome) -> Result<bool, StoreError>;
    /// Jobs in each state, all six of them.
    async fn counts(&self) -> Result<Vec<(Status, u64)>, StoreError>;
    /// Jobs that have ended, the one that ended first at the head, each with how long ago that was.
    async fn ended(&self) -> Result<Vec<(JobId, Duration)>, StoreError>;
    /// Jobs whose checkpoints are the models of jobs that have not ended: their files are still needed.
    async fn models_in_use(&self) -> Result<BTreeSet<JobId>, StoreError>;
    /// Changes whenever something was written through this store. A reader waits for it, but not for long: another
    /// process may write too.
    fn changes(&self) -> watch::Receiver<u64>;
    /// Whether the store answers; for readiness.
    async fn ping(&self) -> Result<(), StoreError>;
}
