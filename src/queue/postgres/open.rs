//! Opening: connections that notice when the other end is gone, and the right schema.

use std::{str::FromStr, sync::Arc, time::Duration};

use sqlx::{
    Connection, PgConnection,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{sync::watch, task::JoinSet};

use super::{PostgresStore, connection::PATIENCE, wake};
use crate::queue::{RetryPolicy, StoreError};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

const NAME: &str = "graspd";
/// A connection that was idle for longer is asked whether it still lives before it is used.
const FRESH: Duration = Duration::from_secs(1);
/// One that nobody needed for so long is closed.
const IDLE: Duration = Duration::from_mins(5);

impl PostgresStore {
    /// Connects to the database at `url`, with at most `connections` connections and one more that listens, and brings
    /// it to this version's schema.
    ///
    /// # Errors
    /// [`StoreError`] when the server cannot be reached, or the database was already brought to a newer version's
    /// schema.
    pub async fn open(url: &str, connections: u32, retry: RetryPolicy) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url)?.application_name(NAME);
        migrate(&options).await?;
        let millis = PATIENCE.as_millis().to_string();
        // What a client that is gone has left open must not keep others waiting.
        let limits = ["statement_timeout", "idle_in_transaction_session_timeout"].map(|name| (name, millis.as_str()));
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(PATIENCE)
            .idle_timeout(IDLE)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > FRESH {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(options.clone().options(limits))
            .await?;
        let (commits, tell) = (watch::Sender::<u64>::default(), watch::Sender::<()>::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(wake::listen(options, commits.clone()));
        tasks.spawn(wake::tell(pool.clone(), tell.subscribe()));
        Ok(Self { pool, retry, commits, tell, _tasks: Arc::new(tasks) })
    }
}

/// Over a connection without limits: others may be migrating, and a migration takes as long as it takes.
async fn migrate(options: &PgConnectOptions) -> Result<(), StoreError> {
    let mut connection = PgConnection::connect_with(options).await?;
    MIGRATIONS.run(&mut connection).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => StoreError::NewerDatabase { version },
        other => StoreError::Migration(other),
    })?;
    Ok(connection.close().await?)
}
