//! A database with all that is kept in one, whichever it is.

use std::sync::Arc;

use async_trait::async_trait;

use super::{DatasetStore, JobStore, KeyStore, PostgresStore, RetryPolicy, SqliteStore, StoreError, WebhookStore};

/// Everything that is kept in a database.
#[async_trait]
pub trait Store: JobStore + KeyStore + DatasetStore + WebhookStore {
    /// Told by who knows that no process works on this machine's data folder. Where that is all there is, every lease is
    /// left of a crash and ends; the jobs are claimed again as after a lapse.
    async fn nobody_is_left(&self) -> Result<(), StoreError>;
    /// Has the database look for damage in its own files, where it can.
    async fn check(&self) -> Result<(), StoreError>;
    /// Closes every connection.
    async fn close(&self);
}

/// Whether this is the address of a PostgreSQL server.
pub fn is_postgres(location: &str) -> bool {
    location.starts_with("postgres://") || location.starts_with("postgresql://")
}

/// Opens the database at `location`, a path, a `sqlite:` URL or a `postgres:` URL, and brings it to this version's schema.
/// Of a PostgreSQL server at most `connections` connections are used, and one more to listen.
///
/// # Errors
/// [`StoreError`] when there is no way to it, or it was already brought to a newer version's schema.
pub async fn open(location: &str, connections: u32, retry: RetryPolicy) -> Result<Arc<dyn Store>, StoreError> {
    Ok(if is_postgres(location) {
        Arc::new(PostgresStore::open(location, connections, retry).await?)
    } else {
        Arc::new(SqliteStore::open(location, retry).await?)
    })
}

/// Opens a database that is there already, for a tool: with no more connections than one user needs.
///
/// # Errors
/// [`StoreError::Missing`] when a file is not there, else those of [`open`].
pub async fn open_existing(location: &str) -> Result<Arc<dyn Store>, StoreError> {
    let retry = RetryPolicy::default();
    Ok(if is_postgres(location) {
        Arc::new(PostgresStore::open(location, 2, retry).await?)
    } else {
        Arc::new(SqliteStore::open_existing(location, retry).await?)
    })
}
