//! What every job store must do, written against the trait alone. Each case runs on every kind of store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail like tests")]

/// Makes two tests of each case, one on SQLite and one on PostgreSQL.
macro_rules! on_every_store {
    ($($case:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $case() {
                super::$case($crate::Kind::Sqlite).await;
            })*
        }

        mod on_postgres {
            $(#[tokio::test]
            async fn $case() {
                if let Some(kind) = $crate::Kind::postgres() {
                    super::$case(kind).await;
                }
            })*
        }
    };
}

mod claims;
mod ends;
mod events;
mod interleavings;
mod lists;
#[path = "../servers/postgres.rs"]
mod postgres;
mod records;
mod servers;
mod throughput;
mod transfers;
mod turns;

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use graspd::{
    clock::{Ids, RandomIds},
    job::{Failure, FailureCode, JobSpec},
    queue::{self, Claim, JobRecord, RetryPolicy, Store},
};
use postgres::Postgres;
use serde_json::json;
use tempfile::TempDir;

/// Long enough for any test.
const LEASE: Duration = Duration::from_mins(1);
/// Over almost at once.
const SHORT_LEASE: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(20);

/// One server for all tests of this process, each with a database of its own.
static POSTGRES: LazyLock<Option<Postgres>> = LazyLock::new(Postgres::start);

/// Which store a case runs on.
#[derive(Clone, Copy)]
enum Kind {
    Sqlite,
    Postgres(&'static Postgres),
}

impl Kind {
    fn postgres() -> Option<Self> {
        POSTGRES.as_ref().map(Self::Postgres)
    }
}

/// A store with a database of its own.
struct Subject {
    _folder: TempDir,
    location: String,
    store: Arc<dyn Store>,
}

impl Subject {
    async fn new(kind: Kind) -> Self {
        Self::in_folder(kind, TempDir::new().unwrap()).await
    }

    async fn in_folder(kind: Kind, folder: TempDir) -> Self {
        let location = match kind {
            Kind::Sqlite => folder.path().join("graspd.db").to_str().unwrap().to_owned(),
            Kind::Postgres(server) => server.database().await,
        };
        let store = Self::open(&location).await;
        Self { _folder: folder, location, store }
    }

    async fn open(location: &str) -> Arc<dyn Store> {
        let retry = RetryPolicy { first_backoff: Duration::from_millis(1), ..RetryPolicy::default() };
        queue::open(location, 8, retry).await.unwrap()
    }

    async fn reopen(&mut self) {
        self.store.close().await;
        self.store = Self::open(&self.location).await;
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

#[expect(clippy::disallowed_methods, reason = "the settings are those of the test, not of the program")]
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

fn spec() -> JobSpec {
    JobSpec::parse(&json!({"model": "file:tiny-llama", "grasp": {"layers": [2, 3]}, "metadata": {"run": "7"}})).unwrap()
}

fn crash() -> Failure {
    Failure::retry(FailureCode::WorkerCrashed, "the worker process was killed by signal 9")
}
