//! Published folders, one per succeeded job.
//!
//! A worker fills a staging folder of its attempt; [`ArtifactStore::publish`] makes it visible in one rename, after
//! everything in it is on disk. What is visible is complete.

mod checksums;
mod disk;
mod logs;

use std::path::PathBuf;

use async_trait::async_trait;
pub(crate) use checksums::hexadecimal;
pub use disk::DiskStore;
pub use logs::Logs;
use serde::{Deserialize, Serialize};

use crate::job::JobId;

/// One file of a published folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Path inside the folder, with `/` between its parts.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content, in lower-case hexadecimal.
    pub sha256: String,
}

/// A folder or a file could not be written, read or named.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The folder's SHA256SUMS is missing or does not fit its files.
    #[error("{path}: {what}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// Published folders by job id.
#[async_trait]
pub trait ArtifactStore: Send + Sync {
    /// An empty folder for an attempt to fill; what an earlier attempt left there is gone.
    async fn stage(&self, job: JobId, attempt: u32) -> Result<PathBuf, ArtifactError>;
    /// Makes the staged folder visible, whole or not at all. A folder that is already visible for this job stays.
    async fn publish(&self, job: JobId, attempt: u32) -> Result<(), ArtifactError>;
    /// Removes the staging folders of a job.
    async fn discard(&self, job: JobId) -> Result<(), ArtifactError>;
    /// The files of a job's folder by name, or `None` when nothing is published.
    async fn list(&self, job: JobId) -> Result<Option<Vec<Artifact>>, ArtifactError>;
    /// Reads all files of a job's folder and holds them against its SHA256SUMS; `None` when nothing is published.
    async fn verify(&self, job: JobId) -> Result<Option<Vec<Artifact>>, ArtifactError>;
    /// Removes everything of a job, published or not.
    async fn remove(&self, job: JobId) -> Result<(), ArtifactError>;
    /// The jobs that have published, with the bytes of their folders.
    async fn published(&self) -> Result<Vec<(JobId, u64)>, ArtifactError>;
    /// Where a published file lies on this machine, or `None` when there is no such file.
    async fn locate(&self, job: JobId, name: &str) -> Result<Option<(PathBuf, Artifact)>, ArtifactError>;
}
