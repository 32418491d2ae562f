//! Jobs on SQLite.
//!
//! One connection writes, a few read. Every write takes the write lock when it begins and is on disk when it returns
//! (write-ahead log, `synchronous = FULL`). All times, `created_at` included, are read from the database's clock, so
//! that leases and timestamps agree whoever asks.

mod backup;
mod datasets;
mod keys;
mod open;
mod reserve;
mod statements;
mod submit;
mod webhooks;

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use sqlx::{
    Connection, Sqlite, SqliteConnection, SqlitePool, Transaction,
    sqlite::{SqliteArguments, SqliteRow},
};

use reserve::Reserve;
use tokio::sync::watch;

use super::{
    Beat, Change, Claim, Deletion, EventRecord, JobRecord, JobStore, Listing, Offer, Outcome, Page, RetryPolicy, Store,
    StoreError, Submission, Submitted,
    retry::Next,
    row::{self, Columns, bytes, millis, to_json},
};
use crate::{
    fault,
    job::{FailureCode, JobId, Progress, Status},
};

/// Jobs on SQLite.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    readers: SqlitePool,
    writer: SqlitePool,
    retry: RetryPolicy,
    reserve: Reserve,
    /// Counts commits, for those who wait for one.
    commits: watch::Sender<u64>,
}

/// Tries to begin a transaction on a sound connection.
const BEGINNINGS: u32 = 3;
/// Exit code of a process that cannot keep what it accepts (`EX_IOERR` of sysexits.h).
const UNSYNCED: i32 = 74;

type Query = sqlx::query::Query<'static, Sqlite, SqliteArguments>;

impl SqliteStore {
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        for _ in 0..BEGINNINGS {
            match self.writer.begin_with(statements::BEGIN).await {
                // On a full disk SQLite ends a transaction by itself, and the connection does not come to know.
                Err(sqlx::Error::InvalidSavePointStatement) => self.writer.acquire().await?.close().await?,
                other => return Ok(other?),
            }
        }
        Ok(self.writer.begin_with(statements::BEGIN).await?)
    }

    /// One statement in a transaction of its own; the row it returns, if any.
    async fn write(&self, query: Query) -> Result<Option<SqliteRow>, StoreError> {
        let mut transaction = self.begin().await?;
        let row = query.fetch_optional(&mut *transaction).await?;
        self.commit(transaction).await?;
        Ok(row)
    }

    async fn commit(&self, transaction: Transaction<'static, Sqlite>) -> Result<(), StoreError> {
        if let Err(error) = transaction.commit().await {
            if is_sync_failure(&error) {
                // What the system took and could not keep may be gone from its cache too, and a later commit might seem
                // to succeed over the hole. Whoever starts next reads what is on the disk.
                tracing::error!(%error, "the database could not be brought to the disk: the process ends");
                std::process::exit(UNSYNCED);
            }
            return Err(error.into());
        }
        self.commits.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Writes what must be written when the disk is full too, if need be in the room that is kept for it.
    async fn write_in_any_case(&self, query: impl Fn() -> Query) -> Result<Option<SqliteRow>, StoreError> {
        match self.write(query()).await {
            Err(StoreError::DiskFull) if self.reserve.release() => self.write(query()).await,
            other => other,
        }
    }

    /// A cancel, a pause or a resume.
    async fn change(&self, statement: &'static str, id: JobId) -> Result<Change, StoreError> {
        if let Some(row) = self.write_in_any_case(|| sqlx::query(statement).bind(id.to_string())).await? {
            return Ok(Change::Accepted(row::record(&row)?));
        }
        Ok(self.get(id).await?.map_or(Change::Unknown, Change::AlreadyOver))
    }
}

/// A connection of its own to a database that is there already.
pub(super) async fn connect(location: &str) -> Result<SqliteConnection, StoreError> {
    Ok(SqliteConnection::connect_with(&open::existing(location)?).await?)
}

/// Whether the system could not bring to the disk what it had taken: `SQLITE_IOERR_FSYNC` and `SQLITE_IOERR_DIR_FSYNC`.
fn is_sync_failure(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| matches!(&*code, "1034" | "1290"))
}

fn of_attempt(statement: &'static str, claim: &Claim) -> Query {
    sqlx::query(statement).bind(claim.id.to_string()).bind(claim.attempt)
}

impl SqliteStore {
    async fn end(&self, claim: &Claim, outcome: &Outcome) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        let row = of_attempt(statements::STANDING, claim).fetch_optional(&mut *transaction).await?;
        let Some(row) = row else { return Ok(false) };
        let query = match self.retry.next(row::standing(&row)?, outcome) {
            Next::Over { status, error } => of_attempt(statements::END, claim)
                .bind(status.as_str())
                .bind(error.as_ref().map(|error| error.code.as_str()))
                .bind(error.map(|error| error.message)),
            Next::Again { status, delay, retries, crashes_in_a_row, memory_needed } => {
                of_attempt(statements::SET_ASIDE, claim)
                    .bind(status.as_str())
                    .bind(millis(delay))
                    .bind(retries)
                    .bind(crashes_in_a_row)
                    .bind(bytes(memory_needed))
            }
        };
        query.execute(&mut *transaction).await?;
        fault::point("settling");
        self.commit(transaction).await?;
        fault::point("settled");
        Ok(true)
    }
}

#[async_trait]
impl JobStore for SqliteStore {
    async fn enqueue(&self, submission: &Submission) -> Result<Submitted, StoreError> {
        self.take(submission).await
    }

    async fn get(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        let row = sqlx::query(statements::GET).bind(id.to_string()).fetch_optional(&self.readers).await?;
        row.as_ref().map(row::record).transpose()
    }

    async fn list(&self, listing: &Listing) -> Result<Page, StoreError> {
        let query = sqlx::query(statements::LIST)
            .bind(listing.after.map(|id| id.to_string()))
            .bind(listing.status.map(Status::as_str))
            .bind(i64::from(listing.limit) + 1)
            .bind(listing.tenant.clone())
            .bind(to_json(&listing.metadata)?);
        let rows = query.fetch_all(&self.readers).await?;
        let limit = usize::try_from(listing.limit).unwrap_or(usize::MAX);
        let jobs = rows.iter().take(limit).map(row::record).collect::<Result<_, _>>()?;
        Ok(Page { jobs, has_more: rows.len() > limit })
    }

    async fn events(&self, id: JobId, after: u64, limit: u32) -> Result<Vec<EventRecord>, StoreError> {
        let id = id.to_string();
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let query = sqlx::query(statements::EVENTS).bind(id.clone()).bind(after).bind(i64::from(limit));
        query.fetch_all(&self.readers).await?.iter().map(|row| row::event(&id, row)).collect()
    }

    async fn cancel(&self, id: JobId) -> Result<Change, StoreError> {
        self.change(statements::CANCEL, id).await
    }

    async fn pause(&self, id: JobId) -> Result<Change, StoreError> {
        self.change(statements::PAUSE, id).await
    }

    async fn resume(&self, id: JobId) -> Result<Change, StoreError> {
        self.change(statements::RESUME, id).await
    }

    async fn delete(&self, id: JobId) -> Result<Deletion, StoreError> {
        let delete = || sqlx::query(statements::DELETE).bind(id.to_string());
        if self.write_in_any_case(delete).await?.is_some() {
            return Ok(Deletion::Deleted);
        }
        Ok(self.get(id).await?.map_or(Deletion::Unknown, |record| Deletion::Active(record.status)))
    }

    /// Wakes nobody: it makes no job claimable.
    async fn announce(&self, offer: &Offer) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(statements::FORGET_WORKERS).execute(&mut *transaction).await?;
        let query = sqlx::query(statements::ANNOUNCE).bind(&offer.worker).bind(bytes(offer.memory));
        query.execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    async fn withdraw(&self, worker: &str) -> Result<(), StoreError> {
        self.write(sqlx::query(statements::WITHDRAW).bind(worker.to_owned())).await.map(drop)
    }

    async fn claim_for(&self, offer: &Offer, lease: Duration) -> Result<Option<Claim>, StoreError> {
        let mut transaction = self.begin().await?;
        let stopped = sqlx::query(statements::STOP_LAPSED).execute(&mut *transaction).await?.rows_affected();
        let mut failed = false;
        let claim = loop {
            let query = sqlx::query(statements::CLAIM).bind(offer.worker.clone()).bind(millis(lease));
            let query = query.bind(bytes(offer.memory));
            let Some(row) = query.fetch_optional(&mut *transaction).await? else { break None };
            match row::claim(&row) {
                Ok(claim) => break Some(claim),
                // A spec of another version must not stop the queue behind it.
                Err(StoreError::Corrupt { id, what }) => {
                    tracing::error!(job.id = id, error = what, "a queued job cannot be read and fails");
                    fail_unreadable(&mut transaction, &row).await?;
                    failed = true;
                }
                Err(error) => return Err(error),
            }
        };
        // Who finds nothing changes nothing, and wakes nobody.
        if claim.is_some() || stopped > 0 || failed {
            self.commit(transaction).await?;
        }
        Ok(claim)
    }

    async fn beat(&self, claim: &Claim, progress: Option<&Progress>, lease: Duration) -> Result<Beat, StoreError> {
        let progress = progress.map(to_json).transpose()?;
        let query = || of_attempt(statements::BEAT, claim).bind(progress.clone()).bind(millis(lease));
        row::beat(self.write_in_any_case(query).await?.as_ref())
    }

    async fn step_finished(&self, claim: &Claim) -> Result<Beat, StoreError> {
        row::beat(self.write_in_any_case(|| of_attempt(statements::STEP_FINISHED, claim)).await?.as_ref())
    }

    async fn settle(&self, claim: &Claim, outcome: &Outcome) -> Result<bool, StoreError> {
        match self.end(claim, outcome).await {
            Err(StoreError::DiskFull) if self.reserve.release() => self.end(claim, outcome).await,
            other => other,
        }
    }

    async fn counts(&self) -> Result<Vec<(Status, u64)>, StoreError> {
        row::counts(&sqlx::query(statements::COUNTS).fetch_all(&self.readers).await?)
    }

    async fn ended(&self) -> Result<Vec<(JobId, Duration)>, StoreError> {
        sqlx::query(statements::ENDED).fetch_all(&self.readers).await?.iter().map(row::ended).collect()
    }

    async fn models_in_use(&self) -> Result<BTreeSet<JobId>, StoreError> {
        sqlx::query(statements::MODELS_IN_USE).fetch_all(&self.readers).await?.iter().map(row::source).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query(statements::PING).fetch_optional(&self.readers).await?;
        Ok(())
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn nobody_is_left(&self) -> Result<(), StoreError> {
        self.write(sqlx::query(statements::EXPIRE_LEASES)).await.map(drop)
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.sound().await
    }

    /// The log is merged into the database file.
    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

async fn fail_unreadable(transaction: &mut Transaction<'static, Sqlite>, row: &SqliteRow) -> Result<(), StoreError> {
    let query = sqlx::query(statements::END)
        .bind(row.text("id")?)
        .bind(row.integer("attempt")?)
        .bind(Status::Failed.as_str())
        .bind(FailureCode::Internal.as_str())
        .bind("the stored spec cannot be read by this version of graspd: submit the job again");
    query.execute(&mut **transaction).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
