//! Folders on this machine: `artifacts/<job>` is published, `staging/<job>/<attempt>` is being filled. Both lie on the
//! same file system, so that publishing is a rename.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use rustix::fs::statvfs;

use super::{
    Artifact, ArtifactError, ArtifactStore, Content,
    checksums::{self, io_error},
};
use crate::{fault, job::JobId};

/// How the names of folders end that have lost theirs and are being removed.
const REMOVED: &str = ".removed";
/// Bytes that must be free for a new job to be taken: the smallest needs them for its log and its checkpoints.
const LEAST_ROOM: u64 = 16 * 1024 * 1024;

/// Published folders on this machine.
#[derive(Clone, Debug)]
pub struct DiskStore {
    folders: Arc<Folders>,
}

#[derive(Debug)]
struct Folders {
    artifacts: PathBuf,
    staging: PathBuf,
}

impl DiskStore {
    /// Keeps its folders in `data_dir`, which is made where it is missing.
    pub fn open(data_dir: &Path) -> Result<Self, ArtifactError> {
        let folders = Folders { artifacts: Self::published_dir(data_dir), staging: data_dir.join("staging") };
        for path in [&folders.artifacts, &folders.staging] {
            fs::create_dir_all(path).map_err(io_error(path))?;
        }
        checksums::sync_folder(data_dir)?;
        folders.finish_removals()?;
        Ok(Self { folders: Arc::new(folders) })
    }

    /// Where the published folders lie, each under its job's id.
    pub fn published_dir(data_dir: &Path) -> PathBuf {
        data_dir.join("artifacts")
    }

    /// The folder that an attempt has filled, and its files, which are those listed, with the listed content.
    pub(super) async fn staged(&self, job: JobId, attempt: u32) -> Result<(PathBuf, Vec<Artifact>), ArtifactError> {
        self.blocking(move |folders| {
            let staged = folders.staged(job, attempt);
            let files = checksums::verify(&staged)?;
            Ok((staged, files))
        })
        .await
    }

    /// File systems block: away from the threads that answer requests.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folders) -> Result<T, ArtifactError> + Send + 'static,
    ) -> Result<T, ArtifactError> {
        let folders = self.folders.clone();
        let path = folders.artifacts.clone();
        tokio::task::spawn_blocking(move || work(&folders))
            .await
            .unwrap_or_else(|error| Err(io_error(&path)(io::Error::other(error))))
    }
}

impl Folders {
    fn published(&self, job: JobId) -> PathBuf {
        self.artifacts.join(job.to_string())
    }

    fn of_job(&self, job: JobId) -> PathBuf {
        self.staging.join(job.to_string())
    }

    fn staged(&self, job: JobId, attempt: u32) -> PathBuf {
        self.of_job(job).join(attempt.to_string())
    }

    fn stage(&self, job: JobId, attempt: u32) -> Result<PathBuf, ArtifactError> {
        let parent = self.of_job(job);
        fs::create_dir_all(&parent).map_err(io_error(&parent))?;
        for entry in fs::read_dir(&parent).map_err(io_error(&parent))? {
            let entry = entry.map_err(io_error(&parent))?;
            let of = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            // A later attempt owns the job by now: a stale one must not take its folder away.
            if of.is_none_or(|of| of <= attempt) {
                remove(&entry.path())?;
            }
        }
        let folder = self.staged(job, attempt);
        fs::create_dir(&folder).map_err(io_error(&folder))?;
        Ok(folder)
    }

    fn publish(&self, job: JobId, attempt: u32) -> Result<u64, ArtifactError> {
        let (staged, published) = (self.staged(job, attempt), self.published(job));
        if !published.exists() {
            checksums::verify_and_sync(&staged)?;
            fault::point("publish-synced");
            match fs::rename(&staged, &published) {
                Ok(()) => {}
                // Another attempt was faster; its folder is as good.
                Err(error) if already_there(&error) => {}
                Err(error) => return Err(io_error(&published)(error)),
            }
        }
        checksums::sync_folder(&self.artifacts)?;
        fault::point("published");
        remove(&staged)?;
        Ok(self.list(job)?.unwrap_or_default().iter().map(|file| file.bytes).sum())
    }

    fn list(&self, job: JobId) -> Result<Option<Vec<Artifact>>, ArtifactError> {
        let published = self.published(job);
        if !published.exists() {
            return Ok(None);
        }
        checksums::read(&published).map(Some)
    }

    fn verify(&self, job: JobId) -> Result<Option<Vec<Artifact>>, ArtifactError> {
        let published = self.published(job);
        if published.exists() { checksums::verify(&published).map(Some) } else { Ok(None) }
    }

    /// The folder loses its name first, so that nobody sees a part of it, whatever happens.
    fn forget(&self, job: JobId) -> Result<(), ArtifactError> {
        let published = self.published(job);
        // No folder is made for it: that may fail on a full disk, and this is how room is made there.
        let aside = self.staging.join(format!("{job}{REMOVED}"));
        remove(&aside)?;
        if published.exists() {
            fs::rename(&published, &aside).map_err(io_error(&published))?;
            checksums::sync_folder(&self.artifacts)?;
            remove(&aside)?;
        }
        remove(&self.of_job(job))
    }

    /// Removes what was on its way out when an earlier process ended.
    fn finish_removals(&self) -> Result<(), ArtifactError> {
        for entry in fs::read_dir(&self.staging).map_err(io_error(&self.staging))? {
            let entry = entry.map_err(io_error(&self.staging))?;
            if entry.file_name().to_string_lossy().ends_with(REMOVED) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn sizes(&self) -> Result<Vec<(JobId, u64)>, ArtifactError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.artifacts).map_err(io_error(&self.artifacts))? {
            let name = entry.map_err(io_error(&self.artifacts))?.file_name();
            if let Some(job) = name.to_str().and_then(|name| name.parse().ok()) {
                let files = self.list(job)?.unwrap_or_default();
                found.push((job, files.iter().map(|file| file.bytes).sum()));
            }
        }
        Ok(found)
    }

    fn is_full(&self) -> Result<bool, ArtifactError> {
        let found = statvfs(&self.staging).map_err(|error| io_error(&self.staging)(error.into()))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize) < LEAST_ROOM)
    }

    /// Only a name that is listed is ever joined to a path.
    fn locate(&self, job: JobId, name: &str) -> Result<Option<(PathBuf, Artifact)>, ArtifactError> {
        let artifacts = self.list(job)?.unwrap_or_default();
        let found = artifacts.into_iter().find(|artifact| artifact.name == name);
        Ok(found.map(|artifact| (self.published(job).join(&artifact.name), artifact)))
    }
}

fn already_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists)
}

fn remove(path: &Path) -> Result<(), ArtifactError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path)(error)),
        _ => Ok(()),
    }
}

#[async_trait]
impl ArtifactStore for DiskStore {
    async fn stage(&self, job: JobId, attempt: u32) -> Result<PathBuf, ArtifactError> {
        self.blocking(move |folders| folders.stage(job, attempt)).await
    }

    async fn publish(&self, job: JobId, attempt: u32) -> Result<u64, ArtifactError> {
        self.blocking(move |folders| folders.publish(job, attempt)).await
    }

    async fn discard(&self, job: JobId) -> Result<(), ArtifactError> {
        self.blocking(move |folders| remove(&folders.of_job(job))).await
    }

    async fn list(&self, job: JobId) -> Result<Option<Vec<Artifact>>, ArtifactError> {
        self.blocking(move |folders| folders.list(job)).await
    }

    async fn verify(&self, job: JobId) -> Result<Option<Vec<Artifact>>, ArtifactError> {
        self.blocking(move |folders| folders.verify(job)).await
    }

    async fn remove(&self, job: JobId) -> Result<(), ArtifactError> {
        self.blocking(move |folders| folders.forget(job)).await
    }

    async fn published(&self) -> Result<Vec<(JobId, u64)>, ArtifactError> {
        self.blocking(Folders::sizes).await
    }

    async fn open(&self, job: JobId, name: &str) -> Result<Option<(Content, Artifact)>, ArtifactError> {
        Ok(self.locate(job, name).await?.map(|(path, artifact)| (Content::File(path), artifact)))
    }

    async fn is_full(&self) -> Result<bool, ArtifactError> {
        self.blocking(Folders::is_full).await
    }

    async fn locate(&self, job: JobId, name: &str) -> Result<Option<(PathBuf, Artifact)>, ArtifactError> {
        let name = name.to_owned();
        self.blocking(move |folders| folders.locate(job, &name)).await
    }
}

#[cfg(test)]
mod tests;
