use std::{path::PathBuf, sync::Arc, time::Duration};

use graspd::{
    artifact::{ArtifactStore, DiskStore},
    checkpoint::write_checksums,
    clock::RandomIds,
    http::{AppState, router, server},
    job::{Failure, FailureCode, JobId},
    queue::{Claim, JobStore, Outcome, RetryPolicy, SqliteStore},
};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch};

/// A service without workers on a free port; one method per endpoint.
pub(crate) struct TestApp {
    pub(crate) address: String,
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) artifacts: Arc<DiskStore>,
    pub(crate) draining: watch::Sender<bool>,
    http: Client,
    folder: TempDir,
}

impl TestApp {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("graspd.db");
        let store = Arc::new(SqliteStore::open(database.to_str().unwrap(), RetryPolicy::default()).await.unwrap());
        let artifacts = Arc::new(DiskStore::open(folder.path()).unwrap());
        let (draining, receiver) = watch::channel(false);
        let state = AppState {
            store: store.clone(),
            artifacts: artifacts.clone(),
            ids: Arc::new(RandomIds),
            draining: receiver,
            metrics: Arc::new(|| "# no other metrics\n".to_owned()),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(server::serve(listener, router(state), std::future::pending()));
        Self { address, store, artifacts, draining, http: Client::new(), folder }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub(crate) fn request(&self, method: reqwest::Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.address))
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(reqwest::Method::GET, path).send().await.unwrap()
    }

    pub(crate) async fn post_job(&self, body: &Value) -> Response {
        self.request(reqwest::Method::POST, "/v1/jobs").json(body).send().await.unwrap()
    }

    pub(crate) async fn cancel(&self, id: JobId) -> Response {
        self.request(reqwest::Method::POST, &format!("/v1/jobs/{id}/cancel")).send().await.unwrap()
    }

    pub(crate) async fn job(&self, id: JobId) -> Value {
        self.get(&format!("/v1/jobs/{id}")).await.json().await.unwrap()
    }

    /// Submits a job and returns its id.
    pub(crate) async fn submit(&self) -> JobId {
        let response = self.post_job(&json!({"model": "file:tiny-llama", "metadata": {"run": "7"}})).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let job: Value = response.json().await.unwrap();
        job["id"].as_str().unwrap().parse().unwrap()
    }

    /// What a worker does first.
    pub(crate) async fn claim(&self) -> Claim {
        self.store.claim("test", Duration::from_mins(1)).await.unwrap().unwrap()
    }

    /// A job that has succeeded, with some files.
    pub(crate) async fn succeeded(&self) -> JobId {
        let id = self.submit().await;
        let claim = self.claim().await;
        let folder = self.artifacts.stage(id, claim.attempt).await.unwrap();
        std::fs::create_dir(folder.join("deep")).unwrap();
        std::fs::write(folder.join("deep/file name.txt"), "deep").unwrap();
        std::fs::write(folder.join("model.safetensors"), "0123456789").unwrap();
        std::fs::write(folder.join("report.json"), "{\"version\": \"test\"}").unwrap();
        write_checksums(&folder).unwrap();
        self.artifacts.publish(id, claim.attempt).await.unwrap();
        assert!(self.store.settle(&claim, &Outcome::Succeeded).await.unwrap());
        id
    }

    /// A job that has failed.
    pub(crate) async fn failed(&self) -> JobId {
        let id = self.submit().await;
        let failure = Failure::give_up(FailureCode::ModelNotFound, "there is no such folder");
        assert!(self.store.settle(&self.claim().await, &Outcome::Failed(failure)).await.unwrap());
        id
    }
}

/// The status, code and field of a problem, after checking its form.
pub(crate) async fn problem(response: Response) -> (u16, String, Option<String>) {
    let status = response.status();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert!(response.headers().contains_key("x-request-id"));
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["status"], status.as_u16());
    assert_eq!(body["type"], "about:blank");
    assert!(!body["title"].as_str().unwrap().is_empty() && !body["detail"].as_str().unwrap().is_empty());
    (status.as_u16(), body["code"].as_str().unwrap().to_owned(), body["field"].as_str().map(str::to_owned))
}
