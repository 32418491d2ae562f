//! A connection of the pool for as long as something is asked over it.

use std::{future::Future, time::Duration};

use sqlx::{
    Acquire, PgConnection, PgPool, Postgres, Transaction,
    pool::PoolConnection,
    postgres::{PgArguments, PgRow},
};
use tokio::time::timeout;

use crate::queue::StoreError;

pub(super) type Query = sqlx::query::Query<'static, Postgres, PgArguments>;

/// How long an answer is waited for; the server gives up on a statement at the same time.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for an answer, but not for ever: a network may swallow it.
pub(super) async fn patiently<T>(answer: impl Future<Output = Result<T, StoreError>> + Send) -> Result<T, StoreError> {
    timeout(PATIENCE, answer).await.unwrap_or(Err(StoreError::Silent { seconds: PATIENCE.as_secs() }))
}

/// A connection that goes back to the pool only when what was asked over it was answered; else it is closed, because
/// nobody knows what it would say next, if anything.
pub(super) struct Held {
    connection: PoolConnection<Postgres>,
    answered: bool,
}

impl Held {
    pub(super) async fn of(pool: &PgPool) -> Result<Self, StoreError> {
        Ok(Self { connection: pool.acquire().await?, answered: false })
    }

    pub(super) async fn begin(&mut self) -> Result<Transaction<'_, Postgres>, StoreError> {
        Ok(self.connection.begin().await?)
    }

    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    pub(super) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.answered {
            self.connection.close_on_drop();
        }
    }
}

/// The row that a statement gives, if any.
pub(super) async fn one(pool: &PgPool, query: Query) -> Result<Option<PgRow>, StoreError> {
    patiently(async {
        let mut held = Held::of(pool).await?;
        let row = query.fetch_optional(held.connection()).await?;
        held.answered();
        Ok(row)
    })
    .await
}

/// All rows that a statement gives.
pub(super) async fn all(pool: &PgPool, query: Query) -> Result<Vec<PgRow>, StoreError> {
    patiently(async {
        let mut held = Held::of(pool).await?;
        let rows = query.fetch_all(held.connection()).await?;
        held.answered();
        Ok(rows)
    })
    .await
}
