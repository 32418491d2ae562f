//! Published folders, one per succeeded job.
//!
//! A worker fills a staging folder of its attempt; [`ArtifactStore::publish`] makes it visible: on a disk in one rename,
//! after everything in it is on disk; in an object store with the row of the job that has succeeded. What is visible is
//! complete.

mod checksums;
mod content;
mod disk;
mod logs;
mod objects;

use std::{collections::BTreeSet, path::PathBuf};

use async_trait::async_trait;
pub(crate) use checksums::hexadecimal;
pub use content::{Content, ObjectContent};
pub use disk::DiskStore;
pub use logs::Logs;
pub use objects::{Bucket, Depot, LogPlace, ObjectArtifacts, Row, Rows, Sent};
use serde::{Deserialize, Serialize};

use crate::job::{JobId, JobSpec};

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
    /// The object store refused, or did not answer.
    #[error("object store, {key}: {source}")]
    Objects {
        /// The object, or a prefix.
        key: String,
        /// Why not.
        #[source]
        source: object_store::Error,
    },
    /// The rows that say what is published could not be read.
    #[error("{0}")]
    Rows(String),
    /// The folder's SHA256SUMS is missing or does not fit its files.
    #[error("{path}: {what}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// What a job here reads that may lie elsewhere: uploaded texts, and what another job has published.
#[async_trait]
pub trait Inputs: Send + Sync {
    /// Makes it lie on this machine.
    async fn bring(&self, spec: &JobSpec) -> Result<(), ArtifactError>;
}

/// Published folders by job id.
#[async_trait]
pub trait ArtifactStore: Send + Sync {
    /// An empty folder for an attempt to fill; what an earlier attempt left there is gone.
    async fn stage(&self, job: JobId, attempt: u32) -> Result<PathBuf, ArtifactError>;
    /// Makes the staged folder visible, whole or not at all; its bytes. A folder that is already visible for this job
    /// stays.
    async fn publish(&self, job: JobId, attempt: u32) -> Result<u64, ArtifactError>;
    /// Removes what only a job that runs again would need, its staging folders among them.
    async fn discard(&self, job: JobId) -> Result<(), ArtifactError>;
    /// The files of a job's folder by name, or `None` when nothing is published.
    async fn list(&self, job: JobId) -> Result<Option<Vec<Artifact>>, ArtifactError>;
    /// Reads all files of a job's folder and holds them against its SHA256SUMS; `None` when nothing is published.
    async fn verify(&self, job: JobId) -> Result<Option<Vec<Artifact>>, ArtifactError>;
    /// Removes everything of a job, published or not.
    async fn remove(&self, job: JobId) -> Result<(), ArtifactError>;
    /// The jobs that have published, with the bytes of their folders.
    async fn published(&self) -> Result<Vec<(JobId, u64)>, ArtifactError>;
    /// Whether there is next to no room left for another job's files.
    async fn is_full(&self) -> Result<bool, ArtifactError>;
    /// A published file, or `None` when there is no such file.
    async fn open(&self, job: JobId, name: &str) -> Result<Option<(Content, Artifact)>, ArtifactError>;
    /// Where a published file, or a copy of it, lies on this machine, or `None` when there is no such file.
    async fn locate(&self, job: JobId, name: &str) -> Result<Option<(PathBuf, Artifact)>, ArtifactError>;
    /// Makes a published folder lie on this machine, for a job here that has it as its model.
    async fn bring(&self, _: JobId) -> Result<(), ArtifactError> {
        Ok(())
    }
    /// Removes what no job can need any more; how many objects that were.
    async fn sweep(&self) -> Result<usize, ArtifactError> {
        Ok(0)
    }
    /// Removes the copies on this machine of what jobs have published, but for these.
    async fn remove_copies_but(&self, _: &BTreeSet<JobId>) -> Result<(), ArtifactError> {
        Ok(())
    }
}
