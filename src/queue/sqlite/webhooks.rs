//! Deliveries on SQLite.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row;

use super::{SqliteStore, millis, row, statements, statements::now};
use crate::queue::{Delivery, StoreError, WebhookStore};

const DUE: &str = concat!(
    "UPDATE webhook_deliveries SET attempts = attempts + 1, due_at = ",
    now!(),
    " + ?1 WHERE id = (SELECT id FROM webhook_deliveries WHERE due_at <= ",
    now!(),
    " ORDER BY due_at LIMIT 1) RETURNING id, job, seq, attempts"
);
const PUT_OFF: &str = concat!("UPDATE webhook_deliveries SET due_at = ", now!(), " + ?2 WHERE id = ?1 RETURNING id");
const CLOSE: &str = "UPDATE webhook_deliveries SET due_at = NULL WHERE id = ?1 RETURNING id";

#[async_trait]
impl WebhookStore for SqliteStore {
    async fn due_delivery(&self, lease: Duration) -> Result<Option<Delivery>, StoreError> {
        let Some(due) = self.write(sqlx::query(DUE).bind(millis(lease))).await? else { return Ok(None) };
        let (id, job): (String, String) = (due.try_get("id")?, due.try_get("job")?);
        let seq: i64 = due.try_get("seq")?;
        let record = sqlx::query(statements::GET).bind(job.clone()).fetch_optional(&self.readers).await?;
        let event = sqlx::query(statements::EVENTS).bind(job.clone()).bind(seq - 1).bind(1_i64);
        let event = event.fetch_optional(&self.readers).await?;
        // A job that was deleted meanwhile took both with it.
        let (Some(record), Some(event)) = (record, event) else { return Ok(None) };
        Ok(Some(Delivery {
            id,
            job: row::record(&record)?,
            event: row::event(&job, &event)?,
            attempts: u32::try_from(due.try_get::<i64, _>("attempts")?).unwrap_or(u32::MAX),
        }))
    }

    async fn put_off(&self, id: &str, delay: Duration) -> Result<(), StoreError> {
        self.write(sqlx::query(PUT_OFF).bind(id.to_owned()).bind(millis(delay))).await.map(drop)
    }

    async fn close_delivery(&self, id: &str) -> Result<(), StoreError> {
        self.write(sqlx::query(CLOSE).bind(id.to_owned())).await.map(drop)
    }
}
