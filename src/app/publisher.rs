//! Publishes checkpoints in the background, one at a time for each job.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::runtime::Handle;

use crate::{
    artifact::{ArtifactError, ArtifactStore},
    checkpoint::{self, HubSettings, Upload, UploadFile, Uploaded},
    http::Draining,
    job::{
        JobId, Publication, PublicationOrder, PublicationRefusal, PublicationStatus, Publisher, Report,
        spec::ExportFormat,
    },
};

const REPORT: &str = "report.json";

/// Publishes what `artifacts` holds.
#[derive(Clone)]
pub struct HubPublisher {
    artifacts: Arc<dyn ArtifactStore>,
    hub: HubSettings,
    draining: Draining,
    runtime: Handle,
    known: Arc<Mutex<HashMap<JobId, Publication>>>,
}

/// Why a publication failed.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("the job's files cannot be read; the server's log has the details")]
    Artifacts(#[from] ArtifactError),
    #[error("the job's report cannot be read: {0}")]
    Report(String),
    #[error("the job wrote no {} checkpoint", .0.as_str())]
    NoFormat(ExportFormat),
    #[error("the server stopped; publish again")]
    Stopped,
    #[error("{0}")]
    Hub(checkpoint::Error),
}

impl HubPublisher {
    /// Begins with nothing published; everything runs on `runtime` and ends when `draining` is raised.
    pub fn new(artifacts: Arc<dyn ArtifactStore>, hub: HubSettings, draining: Draining, runtime: Handle) -> Self {
        Self { artifacts, hub, draining, runtime, known: Arc::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<JobId, Publication>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, job: JobId, change: impl FnOnce(&mut Publication)) {
        if let Some(publication) = self.known().get_mut(&job) {
            change(publication);
        }
    }

    async fn run(self, job: JobId, order: PublicationOrder) {
        match self.deliver(job, order).await {
            Ok(Uploaded { url, commit }) => {
                tracing::info!(job.id = %job, hub.url = %url, hub.commit = %commit, "checkpoint published");
                self.note(job, |publication| {
                    publication.status = PublicationStatus::Succeeded;
                    (publication.url, publication.commit) = (Some(url), Some(commit));
                });
            }
            Err(error) => {
                tracing::warn!(job.id = %job, error = ?error, "checkpoint not published");
                self.note(job, |publication| {
                    publication.status = PublicationStatus::Failed;
                    publication.error = Some(error.to_string());
                });
            }
        }
    }

    async fn deliver(&self, job: JobId, order: PublicationOrder) -> Result<Uploaded, PublishError> {
        let upload = self.upload(job, &order).await?;
        let mut hub = self.hub.clone();
        if let Some(token) = &order.token {
            hub.token = Some(token.expose().to_owned());
        }
        let publisher = self.clone();
        let work = move || {
            checkpoint::upload(&upload, &hub, &mut |done, total, _| {
                publisher.note(job, |publication| (publication.done, publication.total) = (done, total));
                !publisher.draining.is_draining()
            })
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Err(checkpoint::Error::Cancelled)) | Err(_) => Err(PublishError::Stopped),
            Ok(result) => result.map_err(PublishError::Hub),
        }
    }

    /// The files of the chosen checkpoint, by the names they have at the top of a repository.
    async fn upload(&self, job: JobId, order: &PublicationOrder) -> Result<Upload, PublishError> {
        let (report, prefix) = self.chosen(job, order.format).await?;
        let mut files = Vec::new();
        for artifact in self.artifacts.list(job).await?.unwrap_or_default() {
            let inside = artifact.name.strip_prefix(&prefix).filter(|name| prefix.is_empty() || !name.is_empty());
            let name = inside.or_else(|| (artifact.name == REPORT).then_some(REPORT)).map(str::to_owned);
            let (Some(name), Some((path, _))) = (name, self.artifacts.locate(job, &artifact.name).await?) else {
                continue;
            };
            files.push(UploadFile { name, path, bytes: artifact.bytes, sha256: artifact.sha256 });
        }
        let summary = format!("{}, compressed with graspd {}", report.model.source, report.version);
        Ok(Upload { repository: order.repository.clone(), private: order.private, summary, files })
    }

    /// The job's report, and what the names of the chosen checkpoint's files begin with.
    async fn chosen(&self, job: JobId, format: Option<ExportFormat>) -> Result<(Report, String), PublishError> {
        let unreadable = |what: String| PublishError::Report(what);
        let located = self.artifacts.locate(job, REPORT).await?;
        let (path, _) = located.ok_or_else(|| unreadable("it is missing".to_owned()))?;
        let bytes = tokio::fs::read(&path).await.map_err(|error| unreadable(error.to_string()))?;
        let report: Report = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
        let mut written = report.checkpoints.iter();
        let checkpoint = match format {
            None => written.next(),
            Some(format) => {
                Some(written.find(|checkpoint| checkpoint.format == format).ok_or(PublishError::NoFormat(format))?)
            }
        };
        let folder = checkpoint.map(|checkpoint| checkpoint.folder.clone()).unwrap_or_default();
        let prefix = if folder.is_empty() { folder } else { format!("{folder}/") };
        Ok((report, prefix))
    }
}

impl Publisher for HubPublisher {
    fn publish(&self, job: JobId, order: PublicationOrder) -> Result<Publication, PublicationRefusal> {
        if order.token.is_none() && self.hub.token.is_none() {
            return Err(PublicationRefusal::NoToken);
        }
        let mut known = self.known();
        if known.get(&job).is_some_and(|publication| publication.status == PublicationStatus::Running) {
            return Err(PublicationRefusal::Running);
        }
        let publication = Publication {
            repo: order.repository.clone(),
            status: PublicationStatus::Running,
            done: 0,
            total: 0,
            url: None,
            commit: None,
            error: None,
        };
        known.insert(job, publication.clone());
        drop(known);
        self.runtime.spawn(self.clone().run(job, order));
        Ok(publication)
    }

    fn publication(&self, job: JobId) -> Option<Publication> {
        self.known().get(&job).cloned()
    }
}
