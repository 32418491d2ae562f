//! `graspd verify`: whether the database, the events and the published files say the same.

use std::{path::Path, sync::Arc};

use super::{AppError, kept::RowsOf, runtime};
use crate::{
    artifact::{ArtifactStore, Bucket, DiskStore, ObjectArtifacts},
    cli::{self, FAILED, SUCCEEDED},
    config::{self, StoreArgs},
    job::{EventKind, JobId, Status},
    queue::{self, JobRecord, Listing, Store, StoreError},
};

/// Jobs, and events, that are read at once.
const AT_ONCE: u32 = 500;

/// Reads everything and prints what does not fit, or that all fits. A service may be at work meanwhile.
pub(super) fn verify(args: &StoreArgs, objects_url: Option<&String>) -> Result<u8, AppError> {
    let (data_dir, database) = config::kept(args)?;
    let objects = config::objects(objects_url)?;
    let found = runtime()?.block_on(async {
        let store = queue::open_existing(&database).await?;
        let artifacts: Arc<dyn ArtifactStore> = match &objects {
            None => Arc::new(DiskStore::open(&data_dir)?),
            Some(objects) => {
                let bucket = Bucket::open(&objects.url, &objects.options)?;
                Arc::new(ObjectArtifacts::open(bucket, Arc::new(RowsOf(Arc::clone(&store))), &data_dir)?)
            }
        };
        let found = Inspection { store: &*store, artifacts: &*artifacts, found: Found::default() }.all(&data_dir).await;
        store.close().await;
        found
    })?;
    cli::print(&found.to_string())?;
    Ok(if found.problems.is_empty() { SUCCEEDED } else { FAILED })
}

#[derive(Default)]
struct Found {
    jobs: u64,
    events: u64,
    files: u64,
    bytes: u64,
    problems: Vec<String>,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        let Self { jobs, events, files, bytes, problems } = self;
        let verdict =
            if problems.is_empty() { "all is well".to_owned() } else { format!("{} problems", problems.len()) };
        writeln!(f, "{jobs} jobs, {events} events, {files} published files of {bytes} bytes: {verdict}")
    }
}

struct Inspection<'a> {
    store: &'a dyn Store,
    artifacts: &'a dyn ArtifactStore,
    found: Found,
}

impl Inspection<'_> {
    async fn all(mut self, data_dir: &Path) -> Result<Found, AppError> {
        match self.store.check().await {
            Err(StoreError::Damaged(what)) => self.found.problems.push(format!("database: {what}")),
            other => other?,
        }
        // Folders before rows: a job that is submitted meanwhile has a row, whatever its folder.
        let folders = job_folders(data_dir);
        let mut after = None;
        loop {
            let page = self.store.list(&Listing { after, limit: AT_ONCE, ..Listing::default() }).await?;
            for job in &page.jobs {
                self.job(job).await?;
            }
            after = page.jobs.last().map(|job| job.id);
            if !page.has_more {
                break;
            }
        }
        for (id, name) in folders {
            if self.store.get(id).await?.is_none() && data_dir.join(&name).exists() {
                self.found.problems.push(format!("{name}: belongs to no job"));
            }
        }
        Ok(self.found)
    }

    async fn job(&mut self, job: &JobRecord) -> Result<(), AppError> {
        self.found.jobs += 1;
        self.files(job).await;
        self.events(job).await
    }

    async fn files(&mut self, job: &JobRecord) {
        let files = self.artifacts.verify(job.id).await.unwrap_or_else(|error| {
            self.complain(job, &error.to_string());
            Some(Vec::new())
        });
        match (job.status, &files) {
            (Status::Succeeded, None) => self.complain(job, "has succeeded and published nothing"),
            (Status::Failed | Status::Cancelled, Some(_)) => self.complain(job, "has published all the same"),
            _ => {}
        }
        for file in files.into_iter().flatten() {
            self.found.files += 1;
            self.found.bytes += file.bytes;
        }
    }

    /// Numbers without a gap, and nothing after the last word of a job that has ended.
    async fn events(&mut self, job: &JobRecord) -> Result<(), AppError> {
        let (mut seen, mut last) = (0, None);
        loop {
            let events = self.store.events(job.id, seen, AT_ONCE).await?;
            for event in &events {
                seen += 1;
                if event.seq != seen {
                    self.complain(job, &format!("event {seen} is missing"));
                    return Ok(());
                }
                last = Some(event.kind);
            }
            if events.len() < AT_ONCE as usize {
                break;
            }
        }
        self.found.events += seen;
        let ended = match job.status {
            Status::Succeeded => Some(EventKind::Succeeded),
            Status::Failed => Some(EventKind::Failed),
            Status::Cancelled => Some(EventKind::Cancelled),
            Status::Queued | Status::Running | Status::Paused => None,
        };
        if ended.is_some() && last != ended {
            self.complain(job, &format!("its last event is {}", last.map_or("missing", EventKind::as_str)));
        }
        Ok(())
    }

    fn complain(&mut self, job: &JobRecord, what: &str) {
        self.found.problems.push(format!("job {} ({}): {what}", job.id, job.status.as_str()));
    }
}

/// What lies under the names of jobs, with its place in the data folder.
fn job_folders(data_dir: &Path) -> Vec<(JobId, String)> {
    let mut found = Vec::new();
    for kind in ["artifacts", "staging", "work", "logs"] {
        for entry in std::fs::read_dir(data_dir.join(kind)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let id = name.strip_suffix(".log").unwrap_or(&name).parse();
            found.extend(id.ok().map(|id| (id, format!("{kind}/{name}"))));
        }
    }
    found
}
