//! What only SQLite does; the behaviour every store shares is tested in `tests/store`.

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::{
    clock::{Ids, RandomIds},
    job::JobSpec,
};

async fn open(folder: &TempDir) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(folder.path().join("graspd.db").to_str().unwrap(), RetryPolicy::default()).await
}

fn spec() -> JobSpec {
    JobSpec::parse(&json!({"model": "org/name"})).unwrap()
}

#[tokio::test]
async fn writes_survive_a_power_cut_and_readers_cannot_write() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await.unwrap();
    let pragma = |name| sqlx::query_scalar::<_, i64>(name).fetch_one(&store.writer);
    assert_eq!(pragma("PRAGMA synchronous").await.unwrap(), 2, "FULL");
    assert_eq!(pragma("PRAGMA mmap_size").await.unwrap(), 0);
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&store.writer).await.unwrap();
    assert_eq!(mode, "wal");
    assert!(sqlx::query("DELETE FROM jobs").execute(&store.readers).await.is_err());
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (99990101000000, 'from the future', 1, x'00', 0)";
    sqlx::query(newer).execute(&store.writer).await.unwrap();
    store.close().await;
    let error = open(&folder).await.unwrap_err();
    assert!(matches!(error, StoreError::NewerDatabase { version: 99_990_101_000_000 }), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_told_apart() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await.unwrap();
    // The limit makes SQLite report what it reports when the file system has no room.
    sqlx::query("PRAGMA max_page_count = 1").execute(&store.writer).await.unwrap();
    let error = loop {
        if let Err(error) = store.submit(RandomIds.job_id(), &spec()).await {
            break error;
        }
    };
    assert!(matches!(error, StoreError::DiskFull), "{error}");
}

#[tokio::test]
async fn a_spec_that_cannot_be_read_does_not_stop_the_queue() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await.unwrap();
    let unreadable = store.submit(RandomIds.job_id(), &spec()).await.unwrap().id;
    let next = store.submit(RandomIds.job_id(), &spec()).await.unwrap().id;
    sqlx::query("UPDATE jobs SET spec = '{}' WHERE id = ?1")
        .bind(unreadable.to_string())
        .execute(&store.writer)
        .await
        .unwrap();
    assert_eq!(store.claim("w", Duration::from_secs(30)).await.unwrap().unwrap().id, next);
    assert!(matches!(store.get(unreadable).await, Err(StoreError::Corrupt { .. })));
    assert_eq!(store.counts().await.unwrap()[4], (Status::Failed, 1));
}
