//! A pool of one slot whose children are shell scripts.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use graspd::{
    artifact::{ArtifactStore, DiskStore},
    clock::{Ids, RandomIds},
    job::{JobId, JobSpec},
    queue::{JobRecord, JobStore, Outcome, RetryPolicy, SqliteStore},
    worker::{self, Environment, Retention, Settings, Timing},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use crate::watched::{WatchedFolders, WatchedJobs};

/// Long enough for a slow machine, short enough to fail a test.
const PATIENCE: Duration = Duration::from_secs(30);

/// What every script can use: the folders of its attempt, and a way to talk.
const PRELUDE: &str = r#"
work=$2 output=$4
say() { printf '{"type":"%s"}\n' "$1"; }
finish() { echo weights > $output/model; (cd $output && sha256sum model > SHA256SUMS); say done; }
progress() { printf '{"type":"progress","progress":{"stage":"%s","done":%s,"total":9}}\n' "$1" "$2"; }
"#;

pub(crate) struct Bench {
    folder: TempDir,
    pub(crate) settings: Settings,
    pub(crate) store: Arc<WatchedJobs>,
    pub(crate) artifacts: Arc<WatchedFolders>,
    stop: watch::Sender<bool>,
    pool: Option<JoinHandle<()>>,
}

impl Bench {
    /// A pool that is not running yet.
    pub(crate) async fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let retry = RetryPolicy { first_backoff: Duration::from_millis(1), ..RetryPolicy::default() };
        let database = folder.path().join("graspd.db");
        let inner = SqliteStore::open(database.to_str().unwrap(), retry).await.unwrap();
        let store = WatchedJobs { inner, settled: Mutex::default(), cut: AtomicBool::new(false) };
        let artifacts = WatchedFolders { inner: DiskStore::open(folder.path()).unwrap(), full: AtomicBool::new(false) };
        let settings = Settings {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), format!("{PRELUDE}{script}").into(), "child".into()],
            environment: Environment::default(),
            work_dir: folder.path().join("work"),
            log_dir: folder.path().join("logs"),
            devices: vec!["cpu".to_owned()],
            slots_per_device: 1,
            worker: "test".to_owned(),
            retention: Retention::default(),
            keeps_house: true,
            elsewhere: None,
            slot_memory: 1 << 30,
            timing: quick(),
        };
        let (stop, _) = watch::channel(false);
        Self { folder, settings, store: Arc::new(store), artifacts: Arc::new(artifacts), stop, pool: None }
    }

    /// A running pool.
    pub(crate) async fn running(script: &str) -> Self {
        let mut bench = Self::new(script).await;
        bench.start();
        bench
    }

    pub(crate) fn start(&mut self) {
        let (store, artifacts) = (Arc::clone(&self.store), Arc::clone(&self.artifacts));
        let pool = worker::run(self.settings.clone(), store, artifacts, self.stop.subscribe());
        self.pool = Some(tokio::spawn(pool));
    }

    pub(crate) async fn submit(&self) -> JobId {
        self.submit_body(json!({"model": "file:any"})).await
    }

    pub(crate) async fn submit_body(&self, body: Value) -> JobId {
        let id = RandomIds.job_id();
        let spec = JobSpec::parse(&body).unwrap();
        self.store.submit(id, &spec).await.unwrap();
        id
    }

    pub(crate) async fn record(&self, id: JobId) -> JobRecord {
        self.store.get(id).await.unwrap().unwrap()
    }

    /// Waits until the job looks right.
    pub(crate) async fn until(&self, id: JobId, right: impl Fn(&JobRecord) -> bool) -> JobRecord {
        let looking = async {
            loop {
                let record = self.record(id).await;
                if right(&record) {
                    return record;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if let Ok(record) = timeout(PATIENCE, looking).await {
            return record;
        }
        panic!("still {:?}, log: {}", self.record(id).await, self.log(id))
    }

    pub(crate) async fn until_over(&self, id: JobId) -> JobRecord {
        self.until(id, |record| record.status.is_terminal()).await
    }

    /// Waits until the child showed that it runs.
    pub(crate) async fn until_at_work(&self, id: JobId) {
        self.until(id, |record| record.progress.is_some()).await;
    }

    /// Stops the pool and waits until it is gone.
    pub(crate) async fn stop(&mut self) {
        self.stop.send_replace(true);
        let pool = self.pool.take().unwrap();
        timeout(PATIENCE, pool).await.expect("the pool stops in time").unwrap();
    }

    /// A new pool over the same jobs and folders.
    pub(crate) fn again(self) -> Self {
        let (stop, _) = watch::channel(false);
        Self { stop, ..self }
    }

    pub(crate) fn work(&self, id: JobId) -> PathBuf {
        self.settings.work_dir.join(id.to_string())
    }

    pub(crate) fn log(&self, id: JobId) -> String {
        std::fs::read_to_string(self.folder.path().join("logs").join(format!("{id}.log"))).unwrap_or_default()
    }

    /// The outcomes that were settled, in order.
    pub(crate) fn settled(&self) -> Vec<Outcome> {
        self.store.settled.lock().unwrap().clone()
    }

    /// The names of the published files.
    pub(crate) async fn published(&self, id: JobId) -> Option<Vec<String>> {
        let artifacts = self.artifacts.list(id).await.unwrap()?;
        Some(artifacts.into_iter().map(|artifact| artifact.name).collect())
    }
}

fn quick() -> Timing {
    Timing {
        lease: Duration::from_secs(10),
        beat: Duration::from_millis(20),
        progress: Duration::from_millis(5),
        silence: PATIENCE,
        stall: PATIENCE,
        kill: Duration::from_millis(300),
        drain: Duration::from_secs(10),
        idle: Duration::from_millis(5),
    }
}
