//! The real stores, with an eye on what reaches them and a hand on the cable.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use graspd::{
    artifact::{Artifact, ArtifactError, ArtifactStore, Content, DiskStore},
    job::{JobId, Progress, Status},
    queue::{
        Beat, Change, Claim, Deletion, EventRecord, JobRecord, JobStore, Listing, Offer, Outcome, Page, SqliteStore,
        StoreError, Submission, Submitted,
    },
};
use tokio::sync::watch;

/// A job store that notes which outcomes were settled.
pub(crate) struct WatchedJobs {
    pub(crate) inner: SqliteStore,
    /// Outcomes in the order they were settled.
    pub(crate) settled: Mutex<Vec<Outcome>>,
    /// Whether beats and claims fail. An outcome would get through.
    pub(crate) cut: AtomicBool,
}

impl WatchedJobs {
    fn reach(&self) -> Result<(), StoreError> {
        if self.cut.load(Ordering::SeqCst) { Err(StoreError::DiskFull) } else { Ok(()) }
    }
}

#[async_trait]
impl JobStore for WatchedJobs {
    async fn enqueue(&self, submission: &Submission) -> Result<Submitted, StoreError> {
        self.inner.enqueue(submission).await
    }

    async fn get(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        self.inner.get(id).await
    }

    async fn list(&self, listing: &Listing) -> Result<Page, StoreError> {
        self.inner.list(listing).await
    }

    async fn events(&self, id: JobId, after: u64, limit: u32) -> Result<Vec<EventRecord>, StoreError> {
        self.inner.events(id, after, limit).await
    }

    async fn pause(&self, id: JobId) -> Result<Change, StoreError> {
        self.inner.pause(id).await
    }

    async fn resume(&self, id: JobId) -> Result<Change, StoreError> {
        self.inner.resume(id).await
    }

    async fn delete(&self, id: JobId) -> Result<Deletion, StoreError> {
        self.inner.delete(id).await
    }

    async fn ended(&self) -> Result<Vec<(JobId, Duration)>, StoreError> {
        self.inner.ended().await
    }

    async fn models_in_use(&self) -> Result<BTreeSet<JobId>, StoreError> {
        self.inner.models_in_use().await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes()
    }

    async fn cancel(&self, id: JobId) -> Result<Change, StoreError> {
        self.inner.cancel(id).await
    }

    async fn claim_for(&self, offer: &Offer, lease: Duration) -> Result<Option<Claim>, StoreError> {
        self.reach()?;
        self.inner.claim_for(offer, lease).await
    }

    async fn announce(&self, offer: &Offer) -> Result<(), StoreError> {
        self.reach()?;
        self.inner.announce(offer).await
    }

    async fn withdraw(&self, worker: &str) -> Result<(), StoreError> {
        self.inner.withdraw(worker).await
    }

    async fn beat(&self, claim: &Claim, progress: Option<&Progress>, lease: Duration) -> Result<Beat, StoreError> {
        self.reach()?;
        self.inner.beat(claim, progress, lease).await
    }

    async fn step_finished(&self, claim: &Claim) -> Result<Beat, StoreError> {
        self.reach()?;
        self.inner.step_finished(claim).await
    }

    async fn settle(&self, claim: &Claim, outcome: &Outcome) -> Result<bool, StoreError> {
        self.settled.lock().unwrap().push(outcome.clone());
        self.inner.settle(claim, outcome).await
    }

    async fn counts(&self) -> Result<Vec<(Status, u64)>, StoreError> {
        self.inner.counts().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }
}

/// Published folders on a disk that may be full.
pub(crate) struct WatchedFolders {
    pub(crate) inner: DiskStore,
    pub(crate) full: AtomicBool,
}

#[async_trait]
impl ArtifactStore for WatchedFolders {
    async fn stage(&self, job: JobId, attempt: u32) -> Result<PathBuf, ArtifactError> {
        self.inner.stage(job, attempt).await
    }

    async fn publish(&self, job: JobId, attempt: u32) -> Result<u64, ArtifactError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(ArtifactError::Io { path: "artifacts".into(), source: std::io::ErrorKind::StorageFull.into() });
        }
        self.inner.publish(job, attempt).await
    }

    async fn discard(&self, job: JobId) -> Result<(), ArtifactError> {
        self.inner.discard(job).await
    }

    async fn list(&self, job: JobId) -> Result<Option<Vec<Artifact>>, ArtifactError> {
        self.inner.list(job).await
    }

    async fn verify(&self, job: JobId) -> Result<Option<Vec<Artifact>>, ArtifactError> {
        self.inner.verify(job).await
    }

    async fn remove(&self, job: JobId) -> Result<(), ArtifactError> {
        self.inner.remove(job).await
    }

    async fn published(&self) -> Result<Vec<(JobId, u64)>, ArtifactError> {
        self.inner.published().await
    }

    async fn open(&self, job: JobId, name: &str) -> Result<Option<(Content, Artifact)>, ArtifactError> {
        self.inner.open(job, name).await
    }

    async fn is_full(&self) -> Result<bool, ArtifactError> {
        self.inner.is_full().await
    }

    async fn locate(&self, job: JobId, name: &str) -> Result<Option<(PathBuf, Artifact)>, ArtifactError> {
        self.inner.locate(job, name).await
    }
}
