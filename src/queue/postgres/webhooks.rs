//! Deliveries on PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;

use super::{PostgresStore, millis, row, statements};
use crate::queue::{Delivery, StoreError, WebhookStore, row::Columns};

const DUE: &str = "WITH due AS MATERIALIZED (SELECT id FROM webhook_deliveries WHERE due_at <= graspd_now() \
       ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED) \
     UPDATE webhook_deliveries AS delivery SET attempts = attempts + 1, due_at = graspd_now() + $1 FROM due \
     WHERE delivery.id = due.id RETURNING delivery.id, job, seq, attempts";
const PUT_OFF: &str = "UPDATE webhook_deliveries SET due_at = graspd_now() + $2 WHERE id = $1";
const CLOSE: &str = "UPDATE webhook_deliveries SET due_at = NULL WHERE id = $1";

#[async_trait]
impl WebhookStore for PostgresStore {
    async fn due_delivery(&self, lease: Duration) -> Result<Option<Delivery>, StoreError> {
        let Some(due) = self.one(sqlx::query(DUE).bind(millis(lease))).await? else { return Ok(None) };
        let (job, seq) = (due.text("job")?, due.integer("seq")?);
        let record = self.one(sqlx::query(statements::GET).bind(job.clone())).await?;
        let event = sqlx::query(statements::EVENTS).bind(job.clone()).bind(seq - 1).bind(1_i64);
        // A job that was deleted meanwhile took both with it.
        let (Some(record), Some(event)) = (record, self.one(event).await?) else { return Ok(None) };
        Ok(Some(Delivery {
            id: due.text("id")?,
            job: row::record(&record)?,
            event: row::event(&job, &event)?,
            attempts: u32::try_from(due.integer("attempts")?).unwrap_or(u32::MAX),
        }))
    }

    async fn put_off(&self, id: &str, delay: Duration) -> Result<(), StoreError> {
        self.one(sqlx::query(PUT_OFF).bind(id.to_owned()).bind(millis(delay))).await.map(drop)
    }

    async fn close_delivery(&self, id: &str) -> Result<(), StoreError> {
        self.one(sqlx::query(CLOSE).bind(id.to_owned())).await.map(drop)
    }
}
