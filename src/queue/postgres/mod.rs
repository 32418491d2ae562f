//! Jobs on PostgreSQL, for several machines.
//!
//! Every statement commits by itself but for those of a submission and of an end that depends on what was asked for. Claims pass over each
//! other's rows (`FOR UPDATE SKIP LOCKED`). All times are read from the database's clock, whoever asks. A connection
//! that breaks is made again; one that does not answer is given up after a while.

mod connection;
mod datasets;
mod keys;
mod open;
mod statements;
mod submit;
mod wake;
mod webhooks;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::{PgConnection, PgPool, postgres::PgRow};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use self::connection::{Held, Query, patiently};
use super::{
    Beat, Change, Claim, Deletion, EventRecord, JobRecord, JobStore, Listing, Offer, Outcome, Page, RetryPolicy, Store,
    StoreError, Submission, Submitted,
    retry::{Next, Standing},
    row::{self, Columns, bytes, millis, to_json},
};
use crate::job::{FailureCode, JobId, Progress, Status};

/// How long the end of a process waits for connections to say goodbye.
const FAREWELL: Duration = Duration::from_secs(1);

/// Jobs on PostgreSQL.
#[derive(Clone, Debug)]
pub struct PostgresStore {
    pool: PgPool,
    retry: RetryPolicy,
    /// Counts commits that this process knows of, for those who wait for one.
    commits: watch::Sender<u64>,
    /// Changes when the other processes are to be told.
    tell: watch::Sender<()>,
    /// Telling and listening; they end with the last copy of the store.
    _tasks: Arc<JoinSet<()>>,
}

impl PostgresStore {
    async fn one(&self, query: Query) -> Result<Option<PgRow>, StoreError> {
        connection::one(&self.pool, query).await
    }

    async fn all(&self, query: Query) -> Result<Vec<PgRow>, StoreError> {
        connection::all(&self.pool, query).await
    }

    /// A statement that others may be waiting for; the row it returns, if any.
    async fn write(&self, query: Query) -> Result<Option<PgRow>, StoreError> {
        let row = self.one(query).await?;
        if row.is_some() {
            self.committed();
        }
        Ok(row)
    }

    /// Wakes those who wait, here and elsewhere.
    fn committed(&self) {
        self.commits.send_modify(|count| *count += 1);
        self.tell.send_replace(());
    }

    /// A cancel, a pause or a resume.
    async fn change(&self, statement: &'static str, id: JobId) -> Result<Change, StoreError> {
        if let Some(row) = self.write(sqlx::query(statement).bind(id.to_string())).await? {
            return Ok(Change::Accepted(row::record(&row)?));
        }
        Ok(self.get(id).await?.map_or(Change::Unknown, Change::AlreadyOver))
    }

    async fn settle_once(&self, claim: &Claim, outcome: &Outcome) -> Result<bool, StoreError> {
        if RetryPolicy::ends_in_any_case(outcome) {
            let query = ending(claim, self.retry.next(Standing::default(), outcome));
            return Ok(self.one(query).await?.is_some());
        }
        let mut held = Held::of(&self.pool).await?;
        let mut transaction = held.begin().await?;
        let settled = settle(&mut transaction, claim, self.retry, outcome).await?;
        transaction.commit().await?;
        held.answered();
        Ok(settled)
    }

    /// A spec of another version must not stop the queue behind it.
    async fn fail_unreadable(&self, row: &PgRow) -> Result<(), StoreError> {
        let query = sqlx::query(statements::END)
            .bind(row.text("id")?)
            .bind(row.integer("attempt")?)
            .bind(Status::Failed.as_str())
            .bind(FailureCode::Internal.as_str())
            .bind("the stored spec cannot be read by this version of graspd: submit the job again");
        self.one(query).await.map(drop)
    }
}

async fn settle(
    transaction: &mut PgConnection,
    claim: &Claim,
    retry: RetryPolicy,
    outcome: &Outcome,
) -> Result<bool, StoreError> {
    let row = of_attempt(statements::STANDING, claim).fetch_optional(&mut *transaction).await?;
    let Some(row) = row else { return Ok(false) };
    ending(claim, retry.next(row::standing(&row)?, outcome)).execute(transaction).await?;
    Ok(true)
}

fn ending(claim: &Claim, next: Next) -> Query {
    match next {
        Next::Over { status, error } => of_attempt(statements::END, claim)
            .bind(status.as_str())
            .bind(error.as_ref().map(|error| error.code.as_str()))
            .bind(error.map(|error| without_nul(&error.message))),
        Next::Again { status, delay, retries, crashes_in_a_row, memory_needed } => {
            of_attempt(statements::SET_ASIDE, claim)
                .bind(status.as_str())
                .bind(millis(delay))
                .bind(i64::from(retries))
                .bind(i64::from(crashes_in_a_row))
                .bind(bytes(memory_needed))
        }
    }
}

fn of_attempt(statement: &'static str, claim: &Claim) -> Query {
    sqlx::query(statement).bind(claim.id.to_string()).bind(i64::from(claim.attempt))
}

/// A text as PostgreSQL takes it: it has no place for the character NUL, which SQLite keeps.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// JSON that PostgreSQL is to look into, where not even the escape of NUL is allowed.
fn to_plain_json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    Ok(to_json(value)?.replace("\\u0000", "\\ufffd"))
}

#[async_trait]
impl JobStore for PostgresStore {
    async fn enqueue(&self, submission: &Submission) -> Result<Submitted, StoreError> {
        let submitted = patiently(self.take(submission)).await?;
        if matches!(submitted, Submitted::Accepted(_)) {
            self.committed();
        }
        Ok(submitted)
    }

    async fn get(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        let row = self.one(sqlx::query(statements::GET).bind(id.to_string())).await?;
        row.as_ref().map(row::record).transpose()
    }

    async fn list(&self, listing: &Listing) -> Result<Page, StoreError> {
        let query = sqlx::query(statements::LIST)
            .bind(listing.after.map(|id| id.to_string()))
            .bind(listing.status.map(Status::as_str))
            .bind(i64::from(listing.limit) + 1)
            .bind(listing.tenant.clone())
            .bind(to_plain_json(&listing.metadata)?);
        let rows = self.all(query).await?;
        let limit = usize::try_from(listing.limit).unwrap_or(usize::MAX);
        let jobs = rows.iter().take(limit).map(row::record).collect::<Result<_, _>>()?;
        Ok(Page { jobs, has_more: rows.len() > limit })
    }

    async fn events(&self, id: JobId, after: u64, limit: u32) -> Result<Vec<EventRecord>, StoreError> {
        let id = id.to_string();
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let query = sqlx::query(statements::EVENTS).bind(id.clone()).bind(after).bind(i64::from(limit));
        self.all(query).await?.iter().map(|row| row::event(&id, row)).collect()
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
        if self.write(sqlx::query(statements::DELETE).bind(id.to_string())).await?.is_some() {
            return Ok(Deletion::Deleted);
        }
        Ok(self.get(id).await?.map_or(Deletion::Unknown, |record| Deletion::Active(record.status)))
    }

    async fn announce(&self, offer: &Offer) -> Result<(), StoreError> {
        let query = sqlx::query(statements::ANNOUNCE).bind(offer.worker.clone()).bind(bytes(offer.memory));
        self.one(query).await.map(drop)
    }

    async fn withdraw(&self, worker: &str) -> Result<(), StoreError> {
        self.one(sqlx::query(statements::WITHDRAW).bind(worker.to_owned())).await.map(drop)
    }

    async fn claim_for(&self, offer: &Offer, lease: Duration) -> Result<Option<Claim>, StoreError> {
        loop {
            let query = sqlx::query(statements::CLAIM).bind(offer.worker.clone()).bind(millis(lease));
            let query = query.bind(bytes(offer.memory));
            let Some(row) = self.write(query).await? else { return Ok(None) };
            match row::claim(&row) {
                Err(StoreError::Corrupt { id, what }) => {
                    tracing::error!(job.id = id, error = what, "a queued job cannot be read and fails");
                    self.fail_unreadable(&row).await?;
                }
                claim => return claim.map(Some),
            }
        }
    }

    async fn beat(&self, claim: &Claim, progress: Option<&Progress>, lease: Duration) -> Result<Beat, StoreError> {
        let progress = progress.map(to_plain_json).transpose()?;
        let query = of_attempt(statements::BEAT, claim).bind(progress).bind(millis(lease));
        let row = self.one(query).await?;
        // Beats are many: readers elsewhere find the progress when they look.
        self.commits.send_modify(|count| *count += 1);
        row::beat(row.as_ref())
    }

    async fn step_finished(&self, claim: &Claim) -> Result<Beat, StoreError> {
        row::beat(self.one(of_attempt(statements::STEP_FINISHED, claim)).await?.as_ref())
    }

    async fn settle(&self, claim: &Claim, outcome: &Outcome) -> Result<bool, StoreError> {
        let settled = patiently(Box::pin(self.settle_once(claim, outcome))).await?;
        if settled {
            self.committed();
        }
        Ok(settled)
    }

    async fn counts(&self) -> Result<Vec<(Status, u64)>, StoreError> {
        row::counts(&self.all(sqlx::query(statements::COUNTS)).await?)
    }

    async fn ended(&self) -> Result<Vec<(JobId, Duration)>, StoreError> {
        self.all(sqlx::query(statements::ENDED)).await?.iter().map(row::ended).collect()
    }

    async fn models_in_use(&self) -> Result<BTreeSet<JobId>, StoreError> {
        self.all(sqlx::query(statements::MODELS_IN_USE)).await?.iter().map(row::source).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.one(sqlx::query(statements::PING)).await.map(drop)
    }
}

#[async_trait]
impl Store for PostgresStore {
    /// Does nothing: that nobody works on this machine says nothing of the others.
    async fn nobody_is_left(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// A server checks its pages itself, when they are read; here it is only asked whether it answers.
    async fn check(&self) -> Result<(), StoreError> {
        self.ping().await
    }

    async fn close(&self) {
        // A server that does not answer is left without a word: it notices by itself.
        let _ = timeout(FAREWELL, self.pool.close()).await;
    }
}
