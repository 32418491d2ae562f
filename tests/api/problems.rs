//! The shape of every problem, as a snapshot: these are an interface.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use graspd::{
    job::{Failure, FailureCode, JobId, Progress, Status},
    queue::{
        Beat, Change, Claim, Deletion, EventRecord, JobRecord, JobStore, Listing, Offer, Outcome, Page, SqliteStore,
        Store, StoreError, Submission, Submitted,
    },
};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{TestApp, header};

#[tokio::test]
async fn problems_look_as_they_always_did() {
    let app = TestApp::new().await;
    let queued = app.queued().await;
    app.cancel_job(&queued).await;
    let failed = app.ended(Outcome::Failed(Failure::give_up(FailureCode::Internal, "no"))).await;
    let done = app.succeeded(&[("report.json", "{}")]).await;
    let waiting = app.queued().await;
    let post = |body: &'static str| app.create_job_from_text(body);
    let plain = app.request(Method::POST, "/v1/jobs").header("content-type", "text/plain").body("{}");
    let ranged = app.request(Method::GET, &format!("/v1/jobs/{done}/artifacts/report.json"));
    let matched = app.request(Method::GET, &format!("/v1/jobs/{done}/artifacts/report.json"));
    let responses = [
        app.get("/nowhere").await,
        app.request(Method::DELETE, "/v1/jobs").send().await.unwrap(),
        app.get_job("1").await,
        app.get_artifact(&done, "nothing").await,
        app.list_jobs("?limit=0").await,
        plain.send().await.unwrap(),
        post("{").await,
        app.create_job_from_text(" ".repeat(70_000)).await,
        post(r#"{"model": "a/b", "grasp": {"retain_ratio": 1.5}}"#).await,
        app.cancel_job(&queued).await,
        app.get_report(&waiting).await,
        app.get_report(&failed).await,
        ranged.header("range", "bytes=9-").send().await.unwrap(),
        matched.header("if-match", "\"x\"").send().await.unwrap(),
    ];
    insta::assert_json_snapshot!("problems", by_code(responses).await);
}

#[tokio::test]
async fn faults_of_the_server_look_as_they_always_did() {
    let full = TestApp::with_store(|store| Arc::new(Faulty { store, fault: Fault::DiskFull })).await;
    let panicking = TestApp::with_store(|store| Arc::new(Faulty { store, fault: Fault::Panic })).await;
    let closed = TestApp::new().await;
    closed.database.close().await;
    let draining = TestApp::new().await;
    draining.draining.start();
    let body = json!({"model": "org/name"});
    let responses = [
        full.create_job(&body).await,
        panicking.create_job(&body).await,
        closed.create_job(&body).await,
        draining.create_job(&body).await,
    ];
    for response in &responses {
        assert!(!header(response, "x-request-id").is_empty());
    }
    insta::assert_json_snapshot!("faults", by_code(responses).await);
}

async fn by_code(responses: impl IntoIterator<Item = Response>) -> BTreeMap<String, Value> {
    let mut problems = BTreeMap::new();
    for response in responses {
        assert_eq!(header(&response, "content-type"), "application/problem+json");
        let status = response.status().as_u16();
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["status"], status);
        let code = problem["code"].as_str().unwrap().to_owned();
        assert!(problems.insert(code, problem).is_none(), "a code twice");
    }
    problems
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let app = TestApp::new().await;
    for (method, path, allowed) in [
        (Method::DELETE, "/v1/jobs", "GET,HEAD,POST"),
        (Method::POST, "/livez", "GET,HEAD"),
        (Method::GET, "/v1/jobs/1/cancel", "POST"),
    ] {
        let response = app.request(method, path).send().await.unwrap();
        let mut allow: Vec<_> = header(&response, "allow").split(',').collect();
        allow.sort_unstable();
        assert_eq!((response.status().as_u16(), allow.join(",").as_str()), (405, allowed), "{path}");
    }
}

#[derive(Clone, Copy)]
enum Fault {
    DiskFull,
    Panic,
}

/// A store whose disk is full, or that has a fault of its own, when a job is submitted.
struct Faulty {
    store: SqliteStore,
    fault: Fault,
}

#[async_trait]
impl JobStore for Faulty {
    async fn enqueue(&self, _: &Submission) -> Result<Submitted, StoreError> {
        match self.fault {
            Fault::DiskFull => Err(StoreError::DiskFull),
            Fault::Panic => panic!("a secret"),
        }
    }
    async fn get(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        self.store.get(id).await
    }
    async fn list(&self, listing: &Listing) -> Result<Page, StoreError> {
        self.store.list(listing).await
    }
    async fn events(&self, id: JobId, after: u64, limit: u32) -> Result<Vec<EventRecord>, StoreError> {
        self.store.events(id, after, limit).await
    }
    async fn pause(&self, id: JobId) -> Result<Change, StoreError> {
        self.store.pause(id).await
    }
    async fn resume(&self, id: JobId) -> Result<Change, StoreError> {
        self.store.resume(id).await
    }
    async fn delete(&self, id: JobId) -> Result<Deletion, StoreError> {
        self.store.delete(id).await
    }
    async fn ended(&self) -> Result<Vec<(JobId, Duration)>, StoreError> {
        self.store.ended().await
    }
    async fn models_in_use(&self) -> Result<BTreeSet<JobId>, StoreError> {
        self.store.models_in_use().await
    }
    fn changes(&self) -> watch::Receiver<u64> {
        self.store.changes()
    }
    async fn cancel(&self, id: JobId) -> Result<Change, StoreError> {
        self.store.cancel(id).await
    }
    async fn claim_for(&self, offer: &Offer, lease: Duration) -> Result<Option<Claim>, StoreError> {
        self.store.claim_for(offer, lease).await
    }
    async fn announce(&self, offer: &Offer) -> Result<(), StoreError> {
        self.store.announce(offer).await
    }
    async fn withdraw(&self, worker: &str) -> Result<(), StoreError> {
        self.store.withdraw(worker).await
    }
    async fn beat(&self, claim: &Claim, progress: Option<&Progress>, lease: Duration) -> Result<Beat, StoreError> {
        self.store.beat(claim, progress, lease).await
    }
    async fn step_finished(&self, claim: &Claim) -> Result<Beat, StoreError> {
        self.store.step_finished(claim).await
    }
    async fn settle(&self, claim: &Claim, outcome: &Outcome) -> Result<bool, StoreError> {
        self.store.settle(claim, outcome).await
    }
    async fn counts(&self) -> Result<Vec<(Status, u64)>, StoreError> {
        self.store.counts().await
    }
    async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }
}
