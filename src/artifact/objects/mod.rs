//! Published folders in an object store: `jobs/<job>/<attempt>/<name>`.
//!
//! An attempt writes below its own number, so that a worker that lost its lease never touches what another one writes.
//! Nothing in the store says which attempt counts: the row of a job that has succeeded does, and that row is written
//! under the attempt's fence. What no row names is swept up.

mod bucket;
mod checkpoints;
mod depot;
mod sweep;

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;

pub use self::bucket::Bucket;
pub use self::depot::{Depot, LogPlace, Sent};
use super::{
    Artifact, ArtifactError, ArtifactStore, Content, DiskStore, ObjectContent,
    checksums::{self, CHECKSUMS, io_error},
};
use crate::job::{JobId, Status};

/// What the row of a job says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where it stands.
    pub status: Status,
    /// Its last attempt; of a job that has succeeded, the one that published.
    pub attempt: u32,
}

/// The rows that say what counts.
#[async_trait]
pub trait Rows: Send + Sync {
    /// The row of a job, or `None` when there is no such job. The text of an error is for the log.
    async fn row(&self, job: JobId) -> Result<Option<Row>, String>;
}

/// Published folders in a bucket. What is being filled, and what a job here needs of another, lies on this machine.
#[derive(Clone)]
pub struct ObjectArtifacts {
    bucket: Bucket,
    rows: Arc<dyn Rows>,
    disk: DiskStore,
    /// Copies of published files, a folder per job.
    copies: PathBuf,
}

/// A name as it stands in keys: where some stores do not take a character, its percent-encoding.
fn encoded(name: &str) -> String {
    object_store::path::Path::from(name).into()
}

fn of_job(job: JobId) -> String {
    format!("jobs/{job}")
}

fn key(job: JobId, attempt: u32, name: &str) -> String {
    format!("jobs/{job}/{attempt}/{}", encoded(name))
}

impl ObjectArtifacts {
    /// Published folders in `bucket`, by what `rows` say; staging folders and copies below `data_dir`.
    ///
    /// # Errors
    /// [`ArtifactError::Io`] when the folders cannot be made.
    pub fn open(bucket: Bucket, rows: Arc<dyn Rows>, data_dir: &Path) -> Result<Self, ArtifactError> {
        let disk = DiskStore::open(data_dir)?;
        Ok(Self { bucket, rows, disk, copies: DiskStore::published_dir(data_dir) })
    }

    async fn row(&self, job: JobId) -> Result<Option<Row>, ArtifactError> {
        self.rows.row(job).await.map_err(ArtifactError::Rows)
    }

    /// The attempt whose folder counts.
    async fn published_attempt(&self, job: JobId) -> Result<Option<u32>, ArtifactError> {
        let row = self.row(job).await?;
        Ok(row.filter(|row| row.status == Status::Succeeded).map(|row| row.attempt))
    }

    async fn files(&self, job: JobId, attempt: u32) -> Result<Option<Vec<Artifact>>, ArtifactError> {
        let list = key(job, attempt, CHECKSUMS);
        let Some(text) = self.bucket.get(&list).await? else { return Ok(None) };
        let corrupt = |what: String| ArtifactError::Corrupt { path: list.clone().into(), what };
        let text = std::str::from_utf8(&text).map_err(|error| corrupt(error.to_string()))?;
        let prefix = key(job, attempt, "");
        let found = self.bucket.below(prefix.trim_end_matches('/')).await?;
        let lengths: HashMap<_, _> = found.into_iter().map(|object| (object.key, object.bytes)).collect();
        let files = checksums::listed(text).map_err(corrupt)?.into_iter().map(|(name, sha256)| {
            let bytes = lengths.get(&key(job, attempt, &name));
            let bytes = *bytes
                .ok_or_else(|| ArtifactError::Corrupt { path: name.clone().into(), what: "is missing".into() })?;
            Ok(Artifact { name, bytes, sha256 })
        });
        files.collect::<Result<_, _>>().map(Some)
    }

    async fn found(&self, job: JobId, name: &str) -> Result<Option<(String, Artifact)>, ArtifactError> {
        let Some(attempt) = self.published_attempt(job).await? else { return Ok(None) };
        let files = self.files(job, attempt).await?.unwrap_or_default();
        Ok(files.into_iter().find(|file| file.name == name).map(|file| (key(job, attempt, name), file)))
    }

    /// Where a copy of a published file lies, made now unless it is there.
    async fn copy(&self, job: JobId, key: &str, file: &Artifact) -> Result<PathBuf, ArtifactError> {
        let path = self.copies.join(job.to_string()).join(&file.name);
        // A copy gets its name when it is whole.
        if !path.exists() {
            self.bucket.download(key, &file.sha256, &path).await?;
        }
        Ok(path)
    }
}

#[async_trait]
impl ArtifactStore for ObjectArtifacts {
    async fn stage(&self, job: JobId, attempt: u32) -> Result<PathBuf, ArtifactError> {
        self.disk.stage(job, attempt).await
    }

    /// The list of checksums goes last: where it is, the rest is.
    async fn publish(&self, job: JobId, attempt: u32) -> Result<u64, ArtifactError> {
        let (staged, files) = self.disk.staged(job, attempt).await?;
        let (list, rest): (Vec<_>, Vec<_>) = files.iter().partition(|file| file.name == CHECKSUMS);
        for file in rest.into_iter().chain(list) {
            let sent = self.bucket.upload(&staged.join(&file.name), file.bytes, &key(job, attempt, &file.name)).await?;
            if sent != file.sha256 {
                let what = format!("has changed while it was published: its SHA-256 is {sent}, not {}", file.sha256);
                return Err(ArtifactError::Corrupt { path: staged.join(&file.name), what });
            }
        }
        self.disk.discard(job).await?;
        Ok(files.iter().map(|file| file.bytes).sum())
    }

    async fn discard(&self, job: JobId) -> Result<(), ArtifactError> {
        self.disk.discard(job).await?;
        self.bucket.remove_below(&checkpoints::of_job(job)).await
    }

    async fn list(&self, job: JobId) -> Result<Option<Vec<Artifact>>, ArtifactError> {
        match self.published_attempt(job).await? {
            Some(attempt) => self.files(job, attempt).await,
            None => Ok(None),
        }
    }

    async fn verify(&self, job: JobId) -> Result<Option<Vec<Artifact>>, ArtifactError> {
        let Some(attempt) = self.published_attempt(job).await? else { return Ok(None) };
        let Some(files) = self.files(job, attempt).await? else { return Ok(None) };
        for file in &files {
            let key = key(job, attempt, &file.name);
            let found = self.bucket.hash(&key).await?;
            if found != file.sha256 {
                let what = format!("has SHA-256 {found}, {CHECKSUMS} says {}", file.sha256);
                return Err(ArtifactError::Corrupt { path: key.into(), what });
            }
        }
        Ok(Some(files))
    }

    async fn remove(&self, job: JobId) -> Result<(), ArtifactError> {
        self.disk.remove(job).await?;
        for prefix in [of_job(job), checkpoints::of_job(job), depot::logs_of_job(job)] {
            self.bucket.remove_below(&prefix).await?;
        }
        Ok(())
    }

    async fn published(&self) -> Result<Vec<(JobId, u64)>, ArtifactError> {
        let mut sizes: HashMap<JobId, u64> = HashMap::new();
        for object in self.bucket.below("jobs").await? {
            if let Some((job, _)) = sweep::owner(&object.key) {
                *sizes.entry(job).or_default() += object.bytes;
            }
        }
        Ok(sizes.into_iter().collect())
    }

    /// Of a bucket nobody can say that; of the disk here, on which its files are made, one can.
    async fn is_full(&self) -> Result<bool, ArtifactError> {
        self.disk.is_full().await
    }

    async fn open(&self, job: JobId, name: &str) -> Result<Option<(Content, Artifact)>, ArtifactError> {
        let found = self.found(job, name).await?;
        Ok(found.map(|(key, file)| (Content::Object(ObjectContent { bucket: self.bucket.clone(), key }), file)))
    }

    async fn locate(&self, job: JobId, name: &str) -> Result<Option<(PathBuf, Artifact)>, ArtifactError> {
        let Some((key, file)) = self.found(job, name).await? else { return Ok(None) };
        Ok(Some((self.copy(job, &key, &file).await?, file)))
    }

    async fn bring(&self, job: JobId) -> Result<(), ArtifactError> {
        let Some(attempt) = self.published_attempt(job).await? else { return Ok(()) };
        for file in self.files(job, attempt).await?.unwrap_or_default() {
            self.copy(job, &key(job, attempt, &file.name), &file).await?;
        }
        Ok(())
    }

    async fn sweep(&self) -> Result<usize, ArtifactError> {
        sweep::sweep(&self.bucket, &*self.rows).await
    }

    async fn remove_copies_but(&self, needed: &BTreeSet<JobId>) -> Result<(), ArtifactError> {
        let entries = fs::read_dir(&self.copies).map_err(io_error(&self.copies))?;
        let jobs: Vec<JobId> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        for job in jobs.into_iter().filter(|job| !needed.contains(job)) {
            self.disk.remove(job).await?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for ObjectArtifacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectArtifacts").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

/// A path that is not there, or what else the system says of it.
fn metadata(path: &Path) -> Result<fs::Metadata, ArtifactError> {
    fs::symlink_metadata(path).map_err(io_error(path))
}
