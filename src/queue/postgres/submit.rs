//! Taking a job: its key, the limits and the row, in one transaction.

use sqlx::PgConnection;

use super::{PostgresStore, connection::Held, row, statements, to_json, to_plain_json, without_nul};
use crate::queue::{
    Idempotency, QueueLimits, StoreError, Submission, Submitted,
    row::{Columns, bytes},
};

impl PostgresStore {
    pub(super) async fn take(&self, submission: &Submission) -> Result<Submitted, StoreError> {
        let mut held = Held::of(&self.pool).await?;
        let mut transaction = held.begin().await?;
        let submitted = submit(&mut transaction, submission).await?;
        transaction.commit().await?;
        held.answered();
        Ok(submitted)
    }
}

async fn submit(transaction: &mut PgConnection, submission: &Submission) -> Result<Submitted, StoreError> {
    if let Some(sent) = &submission.idempotency
        && let Some(earlier) = earlier(transaction, submission, sent).await?
    {
        return Ok(earlier);
    }
    if let Some(full) = full(transaction, submission).await? {
        return Ok(full);
    }
    let id = submission.id.to_string();
    let query = sqlx::query(statements::SUBMIT)
        .bind(&id)
        .bind(to_json(&submission.spec)?)
        .bind(&submission.tenant)
        .bind(&submission.origin.request_id)
        .bind(&submission.origin.traceparent)
        .bind(without_nul(&submission.spec.model.to_string()))
        .bind(&submission.spec.webhook_url)
        .bind(to_plain_json(&submission.spec.metadata)?)
        .bind(submission.spec.priority)
        .bind(bytes(submission.spec.min_memory.unwrap_or(0)));
    let record = row::record(&query.fetch_one(&mut *transaction).await?)?;
    if let Some(sent) = &submission.idempotency {
        let query = sqlx::query(statements::REMEMBER_KEY).bind(&submission.tenant).bind(&sent.key);
        query.bind(&sent.fingerprint).bind(&id).execute(transaction).await?;
    }
    Ok(Submitted::Accepted(record))
}

/// What the client's key already stands for.
async fn earlier(
    transaction: &mut PgConnection,
    submission: &Submission,
    sent: &Idempotency,
) -> Result<Option<Submitted>, StoreError> {
    let query = sqlx::query(statements::LOCK_KEY).bind(&submission.tenant).bind(&sent.key);
    query.execute(&mut *transaction).await?;
    sqlx::query(statements::FORGET_KEYS).execute(&mut *transaction).await?;
    let query = sqlx::query(statements::FIND_KEY).bind(&submission.tenant).bind(&sent.key);
    let Some(found) = query.fetch_optional(&mut *transaction).await? else { return Ok(None) };
    if found.text("fingerprint")? != sent.fingerprint {
        return Ok(Some(Submitted::KeyReused));
    }
    let query = sqlx::query(statements::GET).bind(found.text("job")?);
    row::record(&query.fetch_one(transaction).await?).map(|record| Some(Submitted::Replayed(record)))
}

/// Submissions of the same instant do not see each other: a limit may be passed by as many as there are processes.
async fn full(transaction: &mut PgConnection, submission: &Submission) -> Result<Option<Submitted>, StoreError> {
    let limits = submission.limits;
    if limits == QueueLimits::NONE {
        return Ok(None);
    }
    let query = sqlx::query(statements::WAITING).bind(&submission.tenant);
    let query = query.bind(i64::from(limits.service)).bind(i64::from(limits.tenant));
    let waiting = query.fetch_one(transaction).await?;
    if waiting.integer("tenant")? >= i64::from(limits.tenant) {
        return Ok(Some(Submitted::TenantFull));
    }
    if waiting.integer("service")? >= i64::from(limits.service) {
        return Ok(Some(Submitted::ServiceFull));
    }
    Ok(None)
}
