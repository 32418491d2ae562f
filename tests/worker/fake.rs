//! A store and published folders in memory, which also remember in which order they were told what.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use graspd::{
    artifact::{Artifact, ArtifactError, ArtifactStore},
    job::{Decision, Failure, JobId, JobSpec, Progress, Status},
    queue::{Beat, Cancellation, Claim, JobError, JobRecord, JobStore, Listing, Outcome, Page, StoreError},
};

/// Crashes in a row, and attempts that failed, before a job is given up.
const TRIES: u32 = 3;

/// What was done, in order.
pub(crate) type Events = Arc<Mutex<Vec<String>>>;

#[derive(Default)]
pub(crate) struct FakeStore {
    rows: Mutex<BTreeMap<JobId, Row>>,
    pub(crate) events: Events,
}

struct Row {
    record: JobRecord,
    crashes: u32,
}

impl FakeStore {
    /// Gives a running job to another worker.
    pub(crate) fn steal(&self, id: JobId) {
        self.rows.lock().unwrap().get_mut(&id).unwrap().record.attempt += 1;
    }

    fn owned<T>(&self, claim: &Claim, lost: T, then: impl FnOnce(&mut Row) -> T) -> T {
        let mut rows = self.rows.lock().unwrap();
        match rows.get_mut(&claim.id) {
            Some(row) if row.record.attempt == claim.attempt && row.record.status == Status::Running => then(row),
            _ => lost,
        }
    }
}

fn beat(row: &Row) -> Beat {
    if row.record.cancel_requested { Beat::CancelRequested } else { Beat::Owned }
}

fn end(record: &mut JobRecord, failure: &Failure, again: bool) {
    record.status = if again { Status::Queued } else { Status::Failed };
    record.error = Some(JobError { code: failure.code, message: failure.message.clone() });
}

#[async_trait]
impl JobStore for FakeStore {
    async fn submit(&self, id: JobId, spec: &JobSpec) -> Result<JobRecord, StoreError> {
        let record = JobRecord {
            id,
            spec: spec.clone(),
            status: Status::Queued,
            progress: None,
            attempt: 0,
            cancel_requested: false,
            created_at: 0,
            started_at: None,
            finished_at: None,
            error: None,
        };
        self.rows.lock().unwrap().insert(id, Row { record: record.clone(), crashes: 0 });
        Ok(record)
    }

    async fn get(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        Ok(self.rows.lock().unwrap().get(&id).map(|row| row.record.clone()))
    }

    async fn list(&self, _listing: Listing) -> Result<Page, StoreError> {
        Ok(Page { jobs: Vec::new(), has_more: false })
    }

    async fn cancel(&self, id: JobId) -> Result<Cancellation, StoreError> {
        let mut rows = self.rows.lock().unwrap();
        let Some(row) = rows.get_mut(&id) else { return Ok(Cancellation::Unknown) };
        row.record.cancel_requested = true;
        Ok(Cancellation::Accepted(row.record.clone()))
    }

    async fn claim(&self, _worker: &str, _lease: Duration) -> Result<Option<Claim>, StoreError> {
        let mut rows = self.rows.lock().unwrap();
        let Some(row) = rows.values_mut().find(|row| row.record.status == Status::Queued) else { return Ok(None) };
        row.record.status = Status::Running;
        row.record.attempt += 1;
        Ok(Some(Claim { id: row.record.id, spec: row.record.spec.clone(), attempt: row.record.attempt }))
    }

    async fn beat(&self, claim: &Claim, progress: Option<&Progress>, _lease: Duration) -> Result<Beat, StoreError> {
        Ok(self.owned(claim, Beat::Lost, |row| {
            row.record.progress = progress.cloned().or(row.record.progress.take());
            beat(row)
        }))
    }

    async fn step_finished(&self, claim: &Claim) -> Result<Beat, StoreError> {
        Ok(self.owned(claim, Beat::Lost, |row| {
            row.crashes = 0;
            beat(row)
        }))
    }

    async fn settle(&self, claim: &Claim, outcome: &Outcome) -> Result<bool, StoreError> {
        Ok(self.owned(claim, false, |row| {
            self.events.lock().unwrap().push(format!("settle {}", name(outcome)));
            let record = &mut row.record;
            match outcome {
                Outcome::Succeeded => record.status = Status::Succeeded,
                Outcome::Cancelled => record.status = Status::Cancelled,
                Outcome::Released => record.status = Status::Queued,
                Outcome::Failed(failure) => {
                    end(record, failure, failure.decision == Decision::Retry && record.attempt < TRIES);
                }
                Outcome::Crashed(failure) => {
                    row.crashes += 1;
                    end(record, failure, row.crashes < TRIES);
                }
            }
            true
        }))
    }

    async fn counts(&self) -> Result<Vec<(Status, u64)>, StoreError> {
        Ok(Vec::new())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Cancelled => "cancelled",
        Outcome::Failed(_) => "failed",
        Outcome::Crashed(_) => "crashed",
        Outcome::Released => "released",
    }
}

pub(crate) struct FakeArtifacts {
    pub(crate) folder: PathBuf,
    pub(crate) events: Events,
    /// What publishing meets.
    pub(crate) fault: Option<io::ErrorKind>,
}

impl FakeArtifacts {
    fn staged(&self, job: JobId, attempt: u32) -> PathBuf {
        self.folder.join(format!("staging-{job}-{attempt}"))
    }

    pub(crate) fn published(&self, job: JobId) -> PathBuf {
        self.folder.join(job.to_string())
    }
}

#[async_trait]
impl ArtifactStore for FakeArtifacts {
    async fn stage(&self, job: JobId, attempt: u32) -> Result<PathBuf, ArtifactError> {
        let path = self.staged(job, attempt);
        std::fs::create_dir_all(&path).unwrap();
        Ok(path)
    }

    async fn publish(&self, job: JobId, attempt: u32) -> Result<(), ArtifactError> {
        self.events.lock().unwrap().push("publish".to_owned());
        let path = self.staged(job, attempt);
        if let Some(kind) = self.fault {
            return Err(ArtifactError::Io { path, source: kind.into() });
        }
        std::fs::rename(path, self.published(job)).unwrap();
        Ok(())
    }

    async fn discard(&self, _job: JobId) -> Result<(), ArtifactError> {
        self.events.lock().unwrap().push("discard".to_owned());
        Ok(())
    }

    async fn list(&self, _job: JobId) -> Result<Option<Vec<Artifact>>, ArtifactError> {
        Ok(None)
    }

    async fn locate(&self, _job: JobId, _name: &str) -> Result<Option<(PathBuf, Artifact)>, ArtifactError> {
        Ok(None)
    }
}
