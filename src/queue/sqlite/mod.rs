//! Jobs on SQLite: one file, one writer, a handful of readers.

mod row;
mod settle;

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use sqlx::{
    Connection as _, Row as _, Sqlite, SqlitePool, Transaction,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use self::row::{job_record, parse_id, parse_spec};
use super::{Beat, Cancellation, Claim, JobRecord, JobStore, Listing, Outcome, Page, StoreError};
use crate::job::{JobId, JobSpec, Progress, Status};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// The first SQLite without a bug that can corrupt a database when its write-ahead log is reset.
const OLDEST_SQLITE: (&str, [u32; 3]) = ("3.51.3", [3, 51, 3]);
/// How long a writer waits for another process's transaction.
const BUSY: Duration = Duration::from_secs(10);
const READERS: u32 = 4;

/// Jobs on SQLite.
///
/// Every write is a transaction that takes the lock at its beginning and is on disk when it ends (WAL with
/// synchronous = FULL). Reads never wait for writes.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    readers: SqlitePool,
    writer: SqlitePool,
}

impl SqliteStore {
    /// Opens the database at `path`, creating it if need be, and brings it to this version.
    ///
    /// # Errors
    /// [`StoreError::Migration`] for a database that a newer graspd wrote, [`StoreError::OldSqlite`] for a library that
    /// is not safe, [`StoreError::Database`] for a file that is no database or cannot be opened.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let mut first = SqliteConnection::connect_with(&options).await?;
        check_version(&mut first).await?;
        MIGRATIONS.run(&mut first).await?;
        first.close().await?;
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        let readers = SqlitePoolOptions::new().max_connections(READERS).connect_with(options.read_only(true)).await?;
        Ok(Self { readers, writer })
    }

    /// Closes all connections; the write-ahead log is folded into the database.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn write(&self) -> Result<Transaction<'_, Sqlite>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

async fn check_version(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let found: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(connection).await?;
    let numbers: Vec<u32> = found.split('.').filter_map(|part| part.parse().ok()).collect();
    if numbers.as_slice() >= OLDEST_SQLITE.1.as_slice() {
        return Ok(());
    }
    Err(StoreError::OldSqlite { found, needed: OLDEST_SQLITE.0 })
}

const SELECT_JOB: &str = "SELECT id, spec, status, progress, attempt, cancel_requested, created_at, started_at, finished_at,
    error_code, error_message FROM jobs WHERE id = ?";

const LIST_JOBS: &str = "SELECT id, spec, status, progress, attempt, cancel_requested, created_at, started_at, finished_at,
    error_code, error_message FROM jobs WHERE (?1 IS NULL OR id < ?1) ORDER BY id DESC LIMIT ?2";

const LIST_JOBS_OF_STATUS: &str = "SELECT id, spec, status, progress, attempt, cancel_requested, created_at, started_at,
    finished_at, error_code, error_message FROM jobs WHERE status = ?3 AND (?1 IS NULL OR id < ?1) ORDER BY id DESC LIMIT ?2";

const INSERT_JOB: &str = "INSERT INTO jobs (id, spec, status, available_at, created_at)
    SELECT ?, ?, 'queued', now, now FROM (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) AS now)";

const CANCEL_JOB: &str = "UPDATE jobs SET cancel_requested = 1,
    finished_at = CASE status WHEN 'queued' THEN CAST(unixepoch('subsec') * 1000 AS INTEGER) ELSE finished_at END,
    status = CASE status WHEN 'queued' THEN 'cancelled' ELSE status END
    WHERE id = ? AND status IN ('queued', 'running')";

const SOMETHING_TO_CLAIM: &str = "SELECT EXISTS (SELECT 1 FROM jobs, (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) AS now)
    WHERE (status = 'queued' AND available_at <= now) OR (status = 'running' AND lease_until < now))";

/// A job whose worker vanished after a cancel was asked for has nobody else to end it.
const END_ABANDONED: &str = "UPDATE jobs SET status = 'cancelled', worker = NULL, lease_until = NULL,
    finished_at = CAST(unixepoch('subsec') * 1000 AS INTEGER)
    WHERE status = 'running' AND cancel_requested = 1 AND lease_until < CAST(unixepoch('subsec') * 1000 AS INTEGER)";

const CLAIM_JOB: &str = "UPDATE jobs SET status = 'running', attempt = attempt + 1, worker = ?1, lease_until = clock.now + ?2,
    started_at = coalesce(started_at, clock.now)
    FROM (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) AS now) AS clock
    WHERE id = (SELECT min(id) FROM (
        SELECT min(id) AS id FROM jobs WHERE status = 'queued' AND available_at <= CAST(unixepoch('subsec') * 1000 AS INTEGER)
        UNION ALL
        SELECT min(id) AS id FROM jobs WHERE status = 'running' AND lease_until < CAST(unixepoch('subsec') * 1000 AS INTEGER)))
    RETURNING id, spec, attempt";

const RENEW_LEASE: &str = "UPDATE jobs SET lease_until = CAST(unixepoch('subsec') * 1000 AS INTEGER) + ?, progress = coalesce(?, progress)
    WHERE id = ? AND attempt = ? AND status = 'running' RETURNING cancel_requested";

const FORGIVE_CRASHES: &str = "UPDATE jobs SET crashes = 0 WHERE id = ? AND attempt = ? AND status = 'running' RETURNING cancel_requested";

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn beat(cancel_requested: Option<bool>) -> Beat {
    match cancel_requested {
        Some(true) => Beat::CancelRequested,
        Some(false) => Beat::Owned,
        None => Beat::Lost,
    }
}

#[async_trait]
impl JobStore for SqliteStore {
    async fn submit(&self, id: JobId, spec: &JobSpec) -> Result<JobRecord, StoreError> {
        let text = row::to_json(id, spec)?;
        let mut transaction = self.write().await?;
        sqlx::query(INSERT_JOB).bind(id.to_string()).bind(text).execute(&mut *transaction).await?;
        let row = sqlx::query(SELECT_JOB).bind(id.to_string()).fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        job_record(&row)
    }

    async fn get(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        let row = sqlx::query(SELECT_JOB).bind(id.to_string()).fetch_optional(&self.readers).await?;
        row.as_ref().map(job_record).transpose()
    }

    async fn list(&self, listing: Listing) -> Result<Page, StoreError> {
        let after = listing.after.map(|id| id.to_string());
        // One more than asked for tells whether there is another page.
        let limit = i64::from(listing.limit) + 1;
        let query = match listing.status {
            Some(status) => sqlx::query(LIST_JOBS_OF_STATUS).bind(after).bind(limit).bind(status.as_str()),
            None => sqlx::query(LIST_JOBS).bind(after).bind(limit),
        };
        let rows = query.fetch_all(&self.readers).await?;
        let has_more = rows.len() > listing.limit as usize;
        let jobs = rows.iter().take(listing.limit as usize).map(job_record).collect::<Result<_, _>>()?;
        Ok(Page { jobs, has_more })
    }

    async fn cancel(&self, id: JobId) -> Result<Cancellation, StoreError> {
        let mut transaction = self.write().await?;
        let changed = sqlx::query(CANCEL_JOB).bind(id.to_string()).execute(&mut *transaction).await?.rows_affected();
        let row = sqlx::query(SELECT_JOB).bind(id.to_string()).fetch_optional(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(match row.as_ref().map(job_record).transpose()? {
            None => Cancellation::Unknown,
            Some(record) if changed > 0 => Cancellation::Accepted(record),
            Some(record) => Cancellation::AlreadyOver(record),
        })
    }

    async fn claim(&self, worker: &str, lease: Duration) -> Result<Option<Claim>, StoreError> {
        // Idle workers ask often; they must not take the write lock for nothing.
        if !sqlx::query_scalar::<_, bool>(SOMETHING_TO_CLAIM).fetch_one(&self.readers).await? {
            return Ok(None);
        }
        let mut transaction = self.write().await?;
        sqlx::query(END_ABANDONED).execute(&mut *transaction).await?;
        let row = sqlx::query(CLAIM_JOB).bind(worker).bind(milliseconds(lease)).fetch_optional(&mut *transaction).await?;
        transaction.commit().await?;
        let Some(row) = row else { return Ok(None) };
        let id = parse_id(&row)?;
        Ok(Some(Claim { id, spec: parse_spec(&row)?, attempt: row.try_get("attempt")? }))
    }

    async fn beat(&self, claim: &Claim, progress: Option<&Progress>, lease: Duration) -> Result<Beat, StoreError> {
        let progress = progress.map(|progress| row::to_json(claim.id, progress)).transpose()?;
        let query = sqlx::query_scalar(RENEW_LEASE).bind(milliseconds(lease)).bind(progress);
        let mut transaction = self.write().await?;
        let renewed = query.bind(claim.id.to_string()).bind(claim.attempt).fetch_optional(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(beat(renewed))
    }

    async fn step_finished(&self, claim: &Claim) -> Result<Beat, StoreError> {
        let mut transaction = self.write().await?;
        let query = sqlx::query_scalar(FORGIVE_CRASHES).bind(claim.id.to_string()).bind(claim.attempt);
        let forgiven = query.fetch_optional(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(beat(forgiven))
    }

    async fn settle(&self, claim: &Claim, outcome: &Outcome) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let settled = settle::settle(&mut transaction, claim, outcome).await?;
        transaction.commit().await?;
        Ok(settled)
    }

    async fn counts(&self) -> Result<Vec<(Status, u64)>, StoreError> {
        let query = sqlx::query_as::<_, (String, i64)>("SELECT status, count(*) FROM jobs GROUP BY status");
        let rows = query.fetch_all(&self.readers).await?;
        let count = |status: Status| rows.iter().find(|(name, _)| name == status.as_str()).map_or(0, |(_, count)| *count);
        Ok(Status::ALL.into_iter().map(|status| (status, u64::try_from(count(status)).unwrap_or(0))).collect())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1 FROM jobs LIMIT 1").fetch_optional(&self.readers).await?;
        Ok(())
    }
}
