//! Jobs on SQLite.
//!
//! One connection writes, a few read. Every write takes the write lock when it begins and is on disk when it returns
//! (write-ahead log, `synchronous = FULL`). All times, `created_at` included, are read from the database's clock, so
//! that leases and timestamps agree whoever asks.

mod open;
mod row;
mod statements;

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{
    Row, Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteArguments, SqliteRow},
};

use super::{
    Beat, Cancellation, Claim, JobRecord, JobStore, Listing, Outcome, Page, RetryPolicy, StoreError, retry::Next,
};
use crate::job::{FailureCode, JobId, JobSpec, Progress, Status};

/// Jobs on SQLite.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    readers: SqlitePool,
    writer: SqlitePool,
    retry: RetryPolicy,
}

type Query = sqlx::query::Query<'static, Sqlite, SqliteArguments>;

impl SqliteStore {
    /// Closes every connection, after which the log is merged into the database file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.writer.begin_with(statements::BEGIN).await?)
    }

    /// One statement in a transaction of its own; the row it returns, if any.
    async fn write(&self, query: Query) -> Result<Option<SqliteRow>, StoreError> {
        let mut transaction = self.begin().await?;
        let row = query.fetch_optional(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(row)
    }
}

fn of_attempt(statement: &'static str, claim: &Claim) -> Query {
    sqlx::query(statement).bind(claim.id.to_string()).bind(claim.attempt)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 2)
}

fn to_json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Database(sqlx::Error::Encode(error.into())))
}

#[async_trait]
impl JobStore for SqliteStore {
    async fn submit(&self, id: JobId, spec: &JobSpec) -> Result<JobRecord, StoreError> {
        let query = sqlx::query(statements::SUBMIT).bind(id.to_string()).bind(to_json(spec)?);
        row::record(&self.write(query).await?.ok_or(sqlx::Error::RowNotFound)?)
    }

    async fn get(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        let row = sqlx::query(statements::GET).bind(id.to_string()).fetch_optional(&self.readers).await?;
        row.as_ref().map(row::record).transpose()
    }

    async fn list(&self, listing: Listing) -> Result<Page, StoreError> {
        let query = sqlx::query(statements::LIST)
            .bind(listing.after.map(|id| id.to_string()))
            .bind(listing.status.map(Status::as_str))
            .bind(i64::from(listing.limit) + 1);
        let rows = query.fetch_all(&self.readers).await?;
        let limit = usize::try_from(listing.limit).unwrap_or(usize::MAX);
        let jobs = rows.iter().take(limit).map(row::record).collect::<Result<_, _>>()?;
        Ok(Page { jobs, has_more: rows.len() > limit })
    }

    async fn cancel(&self, id: JobId) -> Result<Cancellation, StoreError> {
        let changed = self.write(sqlx::query(statements::CANCEL).bind(id.to_string())).await?;
        if let Some(row) = changed {
            return Ok(Cancellation::Accepted(row::record(&row)?));
        }
        // Only jobs that are over are left unchanged, and those never change again.
        Ok(self.get(id).await?.map_or(Cancellation::Unknown, Cancellation::AlreadyOver))
    }

    async fn claim(&self, worker: &str, lease: Duration) -> Result<Option<Claim>, StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(statements::CANCEL_LAPSED).execute(&mut *transaction).await?;
        let claim = loop {
            let query = sqlx::query(statements::CLAIM).bind(worker.to_owned()).bind(millis(lease));
            let Some(row) = query.fetch_optional(&mut *transaction).await? else { break None };
            match row::claim(&row) {
                Ok(claim) => break Some(claim),
                // A spec of another version must not stop the queue behind it.
                Err(StoreError::Corrupt { id, what }) => {
                    tracing::error!(job.id = id, error = what, "a queued job cannot be read and fails");
                    fail_unreadable(&mut transaction, &row).await?;
                }
                Err(error) => return Err(error),
            }
        };
        transaction.commit().await?;
        Ok(claim)
    }

    async fn beat(&self, claim: &Claim, progress: Option<&Progress>, lease: Duration) -> Result<Beat, StoreError> {
        let progress = progress.map(to_json).transpose()?;
        let query = of_attempt(statements::BEAT, claim).bind(progress).bind(millis(lease));
        row::beat(self.write(query).await?.as_ref())
    }

    async fn step_finished(&self, claim: &Claim) -> Result<Beat, StoreError> {
        row::beat(self.write(of_attempt(statements::STEP_FINISHED, claim)).await?.as_ref())
    }

    async fn settle(&self, claim: &Claim, outcome: &Outcome) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        let row = of_attempt(statements::STANDING, claim).fetch_optional(&mut *transaction).await?;
        let Some(row) = row else { return Ok(false) };
        let query = match self.retry.next(row::standing(&row)?, outcome) {
            Next::Over { status, error } => of_attempt(statements::END, claim)
                .bind(status.as_str())
                .bind(error.as_ref().map(|error| error.code.as_str()))
                .bind(error.map(|error| error.message)),
            Next::Again { delay, retries, crashes_in_a_row } => {
                of_attempt(statements::REQUEUE, claim).bind(millis(delay)).bind(retries).bind(crashes_in_a_row)
            }
        };
        query.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn counts(&self) -> Result<Vec<(Status, u64)>, StoreError> {
        let mut counts: Vec<_> = Status::ALL.into_iter().map(|status| (status, 0)).collect();
        for row in sqlx::query(statements::COUNTS).fetch_all(&self.readers).await? {
            let status = row::status("of a count", row.try_get("status")?)?;
            let jobs = u64::try_from(row.try_get::<i64, _>("jobs")?).unwrap_or(0);
            counts.iter_mut().filter(|(of, _)| *of == status).for_each(|(_, count)| *count = jobs);
        }
        Ok(counts)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query(statements::PING).fetch_optional(&self.readers).await?;
        Ok(())
    }
}

async fn fail_unreadable(transaction: &mut Transaction<'static, Sqlite>, row: &SqliteRow) -> Result<(), StoreError> {
    let query = sqlx::query(statements::END)
        .bind(row.try_get::<String, _>("id")?)
        .bind(row.try_get::<i64, _>("attempt")?)
        .bind(Status::Failed.as_str())
        .bind(FailureCode::Internal.as_str())
        .bind("the stored spec cannot be read by this version of graspd: submit the job again");
    query.execute(&mut **transaction).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
