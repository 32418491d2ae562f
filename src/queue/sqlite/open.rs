//! Opening: the right SQLite, the right settings, the right schema.

use std::{str::FromStr, time::Duration};

use sqlx::{
    Connection, SqliteConnection, SqlitePool,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use tokio::sync::watch;

use super::{SqliteStore, reserve::Reserve, statements};
use crate::{
    fault,
    queue::{RetryPolicy, StoreError, primary_code},
};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// The first release without the reset of a write-ahead log that could lose a committed transaction.
const NEEDED: (&str, [u32; 3]) = ("3.51.3", [3, 51, 3]);
/// A table that every database of ours has.
const OURS: &str = "_sqlx_migrations";
const CORRUPT: u32 = 11;
const NOT_A_DATABASE: u32 = 26;
const READERS: u32 = 4;
/// How long a statement waits for another process's lock before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

impl SqliteStore {
    /// Opens the database at `location`, a path or a `sqlite:` URL, and brings it to this version's schema.
    ///
    /// # Errors
    /// [`StoreError`] when the location cannot be opened, the linked SQLite is too old, or the database was already
    /// brought to a newer version's schema.
    pub async fn open(location: &str, retry: RetryPolicy) -> Result<Self, StoreError> {
        Self::open_with(options(location)?, retry).await
    }

    /// Opens a database that is there already.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is none, else those of [`Self::open`].
    pub async fn open_existing(location: &str, retry: RetryPolicy) -> Result<Self, StoreError> {
        Self::open_with(existing(location)?, retry).await
    }

    async fn open_with(options: SqliteConnectOptions, retry: RetryPolicy) -> Result<Self, StoreError> {
        inspect(&options).await?;
        let reserve = Reserve::beside(options.get_filename());
        let pool = || SqlitePoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT).idle_timeout(None).max_lifetime(None);
        let options = options.journal_mode(SqliteJournalMode::Wal);
        let writer = pool().max_connections(1).connect_with(options.clone()).await?;
        check_version(&sqlx::query_scalar::<_, String>(statements::VERSION).fetch_one(&writer).await?)?;
        migrate(&writer).await?;
        reserve.hold();
        let readers = pool().max_connections(READERS).connect_with(options.pragma("query_only", "ON")).await?;
        Ok(Self { readers, writer, retry, reserve, commits: watch::Sender::default() })
    }
}

fn options(location: &str) -> Result<SqliteConnectOptions, StoreError> {
    let options = if location.starts_with("sqlite:") {
        SqliteConnectOptions::from_str(location)?
    } else {
        SqliteConnectOptions::new().filename(location)
    };
    if location.contains(":memory:") || location.contains("mode=memory") {
        let refusal = "a database in memory would lose every job: give a file";
        return Err(StoreError::Database(sqlx::Error::Configuration(refusal.into())));
    }
    // No mmap_size: a failing disk would then be a signal and not an error.
    Ok(options.create_if_missing(true).synchronous(SqliteSynchronous::Full).busy_timeout(BUSY_TIMEOUT))
}

/// Looks at a file that is there already, and changes nothing in it.
async fn inspect(options: &SqliteConnectOptions) -> Result<(), StoreError> {
    let path = options.get_filename();
    if !path.exists() {
        return Ok(());
    }
    let unusable = |what| StoreError::Unusable { path: path.to_owned(), what };
    let looked = async {
        let mut connection = SqliteConnection::connect_with(&options.clone().create_if_missing(false)).await?;
        let names: Vec<String> = sqlx::query_scalar(statements::TABLES).fetch_all(&mut connection).await?;
        connection.close().await?;
        Ok(names)
    };
    let names = looked.await.map_err(|error: sqlx::Error| match primary_code(&error) {
        Some(NOT_A_DATABASE) => unusable("is no SQLite database"),
        Some(CORRUPT) => unusable("is damaged"),
        _ => error.into(),
    })?;
    let is_ours = names.is_empty() || names.iter().any(|name| name == OURS);
    if is_ours { Ok(()) } else { Err(unusable("belongs to another program")) }
}

/// The options for a database that is there already.
pub(super) fn existing(location: &str) -> Result<SqliteConnectOptions, StoreError> {
    let options = options(location)?;
    let file = options.get_filename();
    if file.exists() { Ok(options.create_if_missing(false)) } else { Err(StoreError::Missing(file.to_owned())) }
}

fn check_version(found: &str) -> Result<(), StoreError> {
    let (needed, numbers) = NEEDED;
    let parts: Vec<u32> = found.split('.').map_while(|part| part.parse().ok()).collect();
    if parts.as_slice() >= numbers.as_slice() {
        return Ok(());
    }
    Err(StoreError::OldSqlite { found: found.to_owned(), needed })
}

async fn migrate(writer: &SqlitePool) -> Result<(), StoreError> {
    let described = |error| match error {
        MigrateError::VersionMissing(version) => StoreError::NewerDatabase { version },
        other => StoreError::Migration(other),
    };
    for migration in MIGRATIONS.iter() {
        MIGRATIONS.run_to(migration.version, writer).await.map_err(described)?;
        fault::point("migrated");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sqlite_with_the_log_reset_fault_is_refused() {
        for (version, accepted) in
            [("3.51.2", false), ("3.50.10", false), ("", false), ("3.51.3", true), ("3.52.0", true), ("4.0.0", true)]
        {
            assert_eq!(check_version(version).is_ok(), accepted, "{version}");
        }
    }

    #[test]
    fn a_database_in_memory_is_refused() {
        assert!(options("sqlite::memory:").is_err());
        assert!(options(":memory:").is_err());
    }
}
