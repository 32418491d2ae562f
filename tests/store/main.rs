//! What every job store must do, written against the trait alone. A new store joins by a line in `stores`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail like tests")]

mod claims;
mod ends;
mod events;
mod lists;

use std::{sync::Arc, time::Duration};

use graspd::{
    clock::{Ids, RandomIds},
    job::{Failure, FailureCode, JobSpec},
    queue::{Claim, JobRecord, JobStore, RetryPolicy, SqliteStore},
};
use serde_json::json;
use tempfile::TempDir;

/// Long enough for any test.
const LEASE: Duration = Duration::from_mins(1);
/// Over almost at once.
const SHORT_LEASE: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(20);

/// A store in a folder of its own.
struct Subject {
    folder: TempDir,
    store: Arc<dyn JobStore>,
}

impl Subject {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let store = Self::open(&folder).await;
        Self { folder, store }
    }

    async fn open(folder: &TempDir) -> Arc<dyn JobStore> {
        let retry = RetryPolicy { first_backoff: Duration::from_millis(1), ..RetryPolicy::default() };
        let path = folder.path().join("graspd.db");
        Arc::new(SqliteStore::open(path.to_str().unwrap(), retry).await.unwrap())
    }

    async fn reopen(&mut self) {
        self.store = Self::open(&self.folder).await;
    }

    async fn submit(&self) -> JobRecord {
        self.store.submit(RandomIds.job_id(), &spec()).await.unwrap()
    }

    /// Claims until there is something to claim: a lease lapses and a backoff ends on the store's clock.
    async fn claim(&self, lease: Duration) -> Claim {
        let polled = async {
            loop {
                if let Some(claim) = self.store.claim("worker", lease).await.unwrap() {
                    return claim;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, polled).await.expect("a job to claim")
    }

    async fn running(&self) -> Claim {
        self.submit().await;
        self.claim(LEASE).await
    }

    async fn record(&self, claim: &Claim) -> JobRecord {
        self.store.get(claim.id).await.unwrap().unwrap()
    }
}

fn spec() -> JobSpec {
    JobSpec::parse(&json!({"model": "file:tiny-llama", "grasp": {"layers": [2, 3]}, "metadata": {"run": "7"}})).unwrap()
}

fn crash() -> Failure {
    Failure::retry(FailureCode::WorkerCrashed, "the worker process was killed by signal 9")
}
