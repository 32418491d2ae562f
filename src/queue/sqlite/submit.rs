//! Taking a job: its key, the limits and the row, in one transaction.

use sqlx::{Row, Sqlite, Transaction};

use super::{SqliteStore, row, statements, to_json};
use crate::queue::{Idempotency, StoreError, Submission, Submitted};

type Open = Transaction<'static, Sqlite>;

impl SqliteStore {
    pub(super) async fn take(&self, submission: &Submission) -> Result<Submitted, StoreError> {
        if !self.reserve.hold() {
            return Err(StoreError::DiskFull);
        }
        let mut transaction = self.begin().await?;
        if let Some(sent) = &submission.idempotency
            && let Some(earlier) = earlier(&mut transaction, submission, sent).await?
        {
            return Ok(earlier);
        }
        if let Some(full) = full(&mut transaction, submission).await? {
            return Ok(full);
        }
        let id = submission.id.to_string();
        let query = sqlx::query(statements::SUBMIT)
            .bind(&id)
            .bind(to_json(&submission.spec)?)
            .bind(&submission.tenant)
            .bind(&submission.origin.request_id)
            .bind(&submission.origin.traceparent)
            .bind(submission.spec.priority)
            .bind(row::bytes(submission.spec.min_memory.unwrap_or(0)));
        let record = row::record(&query.fetch_one(&mut *transaction).await?)?;
        if let Some(sent) = &submission.idempotency {
            let query = sqlx::query(statements::REMEMBER_KEY).bind(&submission.tenant).bind(&sent.key);
            query.bind(&sent.fingerprint).bind(&id).execute(&mut *transaction).await?;
        }
        self.commit(transaction).await?;
        Ok(Submitted::Accepted(record))
    }
}

/// What the client's key already stands for.
async fn earlier(
    transaction: &mut Open,
    submission: &Submission,
    sent: &Idempotency,
) -> Result<Option<Submitted>, StoreError> {
    sqlx::query(statements::FORGET_KEYS).execute(&mut **transaction).await?;
    let query = sqlx::query(statements::FIND_KEY).bind(&submission.tenant).bind(&sent.key);
    let Some(found) = query.fetch_optional(&mut **transaction).await? else { return Ok(None) };
    if found.try_get::<String, _>("fingerprint")? != sent.fingerprint {
        return Ok(Some(Submitted::KeyReused));
    }
    let query = sqlx::query(statements::GET).bind(found.try_get::<String, _>("job")?);
    row::record(&query.fetch_one(&mut **transaction).await?).map(|record| Some(Submitted::Replayed(record)))
}

async fn full(transaction: &mut Open, submission: &Submission) -> Result<Option<Submitted>, StoreError> {
    let query = sqlx::query(statements::WAITING).bind(&submission.tenant);
    let waiting = query.fetch_one(&mut **transaction).await?;
    if waiting.try_get::<i64, _>("tenant")? >= i64::from(submission.limits.tenant) {
        return Ok(Some(Submitted::TenantFull));
    }
    if waiting.try_get::<i64, _>("service")? >= i64::from(submission.limits.service) {
        return Ok(Some(Submitted::ServiceFull));
    }
    Ok(None)
}
