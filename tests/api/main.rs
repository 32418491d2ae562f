//! The API over a real socket, a real database and real folders.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail like tests")]

mod artifacts;
mod client;
mod datasets;
mod evaluations;
mod events;
mod examples;
mod hostile;
mod jobs;
mod keys;
mod lifecycle;
mod openapi;
mod plans;
mod problems;
mod publications;
mod service;
mod sources;
mod wait;
mod webhooks;

use std::{
    fmt::Write,
    fs,
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};

use graspd::{
    app::TheMethod,
    artifact::{ArtifactStore, DiskStore, Logs},
    checkpoint::HubSettings,
    clock::RandomIds,
    http::{
        ApiState, Draining, REQUEST_SECONDS, REQUEST_SECONDS_BUCKETS, RateLimit, Settings, Uploads, router, server,
    },
    job::JobId,
    pipeline,
    queue::{Claim, JobStore, Outcome, QueueLimits, RetryPolicy, SqliteStore},
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::net::TcpListener;

const LEASE: Duration = Duration::from_mins(1);

/// One recorder a process.
static METRICS: LazyLock<PrometheusHandle> = LazyLock::new(|| {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(REQUEST_SECONDS.to_owned()), &REQUEST_SECONDS_BUCKETS)
        .unwrap()
        .install_recorder()
        .unwrap()
});

const SETTINGS: Settings = Settings {
    queue: QueueLimits::NONE,
    rate: RateLimit { per_second: None },
    webhooks: true,
    largest_dataset: 10_000,
    datasets_of_tenant: 15_000,
};

/// The real method, over the models that ship with the project.
fn planner() -> TheMethod {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let hub = HubSettings {
        endpoint: "http://127.0.0.1:9".into(),
        cache_dir: "/nonexistent".into(),
        token: None,
        offline: false,
        retry_delay: Duration::ZERO,
    };
    let datasets_dir = fixtures.join("text");
    let settings = pipeline::Settings {
        models_dir: fixtures,
        published_dir: "/nonexistent".into(),
        datasets_dir,
        hub,
        device: "cpu".into(),
        memory_limit: 8 << 30,
    };
    TheMethod { settings, devices: vec!["cpu".to_owned()] }
}

/// A server on a free port, with one method per endpoint.
struct TestApp {
    url: String,
    http: reqwest::Client,
    database: SqliteStore,
    store: Arc<dyn JobStore>,
    artifacts: DiskStore,
    publisher: Arc<publications::Recorder>,
    draining: Draining,
    folder: TempDir,
}

impl TestApp {
    async fn new() -> Self {
        Self::with_store(|database| Arc::new(database)).await
    }

    /// With something between the API and the database.
    async fn with_store(wrap: impl FnOnce(SqliteStore) -> Arc<dyn JobStore>) -> Self {
        Self::with(SETTINGS, wrap).await
    }

    /// With other limits.
    async fn with_settings(settings: Settings) -> Self {
        Self::with(settings, |database| Arc::new(database)).await
    }

    async fn with(settings: Settings, wrap: impl FnOnce(SqliteStore) -> Arc<dyn JobStore>) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("graspd.db");
        let database = SqliteStore::open(path.to_str().unwrap(), RetryPolicy::default()).await.unwrap();
        let artifacts = DiskStore::open(folder.path()).unwrap();
        let (store, draining) = (wrap(database.clone()), Draining::default());
        let keys = Arc::new(database.clone());
        let publisher = Arc::<publications::Recorder>::default();
        let state = ApiState {
            store: store.clone(),
            keys: keys.clone(),
            datasets: keys,
            artifacts: Arc::new(artifacts.clone()),
            logs: Logs::new(folder.path().join("logs")),
            uploads: Uploads::new(folder.path().join("uploads")),
            inputs: None,
            planner: Arc::new(planner()),
            publisher: publisher.clone(),
            ids: Arc::new(RandomIds),
            metrics: METRICS.clone(),
            draining: draining.clone(),
            settings,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(server::serve(listener, router(state), std::future::pending()));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { url, http, database, store, artifacts, publisher, draining, folder }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    async fn create_job(&self, body: &Value) -> Response {
        self.request(Method::POST, "/v1/jobs").json(body).send().await.unwrap()
    }

    async fn create_job_from_text(&self, body: impl Into<reqwest::Body>) -> Response {
        let request = self.request(Method::POST, "/v1/jobs").header("content-type", "application/json");
        request.body(body).send().await.unwrap()
    }

    async fn list_jobs(&self, query: &str) -> Response {
        self.get(&format!("/v1/jobs{query}")).await
    }

    async fn get_job(&self, id: &str) -> Response {
        self.get(&format!("/v1/jobs/{id}")).await
    }

    async fn cancel_job(&self, id: &str) -> Response {
        self.request(Method::POST, &format!("/v1/jobs/{id}/cancel")).send().await.unwrap()
    }

    async fn post(&self, path: &str) -> Response {
        self.request(Method::POST, path).send().await.unwrap()
    }

    async fn delete(&self, path: &str) -> Response {
        self.request(Method::DELETE, path).send().await.unwrap()
    }

    /// A GET with one more header.
    async fn get_with(&self, path: &str, name: &str, value: &str) -> Response {
        self.request(Method::GET, path).header(name, value).send().await.unwrap()
    }

    async fn get_report(&self, id: &str) -> Response {
        self.get(&format!("/v1/jobs/{id}/report")).await
    }

    async fn list_artifacts(&self, id: &str) -> Response {
        self.get(&format!("/v1/jobs/{id}/artifacts")).await
    }

    async fn get_artifact(&self, id: &str, name: &str) -> Response {
        self.get(&format!("/v1/jobs/{id}/artifacts/{name}")).await
    }

    /// Submits a small job and gives its id.
    async fn queued(&self) -> String {
        let job: Value = self.create_job(&json!({"model": "file:tiny-llama"})).await.json().await.unwrap();
        job["id"].as_str().unwrap().to_owned()
    }

    /// Submits a job and claims it, as a worker would.
    async fn running(&self) -> Claim {
        self.queued().await;
        self.store.claim("test", LEASE).await.unwrap().unwrap()
    }

    async fn ended(&self, outcome: Outcome) -> String {
        let claim = self.running().await;
        assert!(self.store.settle(&claim, &outcome).await.unwrap());
        claim.id.to_string()
    }

    /// A job that has published `files`.
    async fn succeeded(&self, files: &[(&str, &str)]) -> String {
        let claim = self.running().await;
        self.publish(claim.id, files).await;
        assert!(self.store.settle(&claim, &Outcome::Succeeded).await.unwrap());
        claim.id.to_string()
    }

    async fn publish(&self, id: JobId, files: &[(&str, &str)]) {
        let staged = self.artifacts.stage(id, 1).await.unwrap();
        let sums: String = files.iter().map(|(name, content)| write_file(&staged, name, content)).collect();
        fs::write(staged.join("SHA256SUMS"), sums).unwrap();
        self.artifacts.publish(id, 1).await.unwrap();
    }
}

/// Writes a file and gives its line of SHA256SUMS.
fn write_file(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    format!("{}  {name}\n", sha256(content))
}

fn sha256(content: &str) -> String {
    Sha256::digest(content).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// The code of a problem, after checking that it is one and fits its reply.
async fn code(response: Response) -> String {
    let status = response.status().as_u16();
    assert_eq!(header(&response, "content-type"), "application/problem+json");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["status"], status, "{problem}");
    problem["code"].as_str().unwrap().to_owned()
}
