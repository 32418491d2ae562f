//! What processes on other machines must find besides published folders: checkpoints, logs, and uploaded texts.

use std::path::{Path, PathBuf};

use super::{Bucket, checkpoints};
use crate::{
    artifact::{ArtifactError, checksums::io_error},
    job::JobId,
};

pub use super::checkpoints::Sent;

/// Bytes of a log that are read at once.
const CHUNK: u64 = 64 * 1024;

pub(super) fn logs_of_job(job: JobId) -> String {
    format!("logs/{job}")
}

fn text_key(name: &str) -> String {
    format!("texts/{name}")
}

/// How far a job's log was read: an attempt, and bytes of its part.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogPlace {
    pub(in crate::artifact) attempt: u32,
    pub(in crate::artifact) bytes: u64,
}

/// A bucket as the place where machines leave things for each other.
#[derive(Clone, Debug)]
pub struct Depot {
    bucket: Bucket,
}

impl Depot {
    /// In a bucket.
    pub const fn new(bucket: Bucket) -> Self {
        Self { bucket }
    }

    /// Sends what an attempt has finished since the last time; `false` when that is nothing.
    ///
    /// # Errors
    /// [`ArtifactError`] when the work folder cannot be read, or the store does not take it.
    pub async fn send_checkpoint(
        &self,
        job: JobId,
        attempt: u32,
        work: &Path,
        sent: &mut Sent,
    ) -> Result<bool, ArtifactError> {
        checkpoints::send(&self.bucket, job, attempt, work, sent).await
    }

    /// Fills the work folder of an attempt with the newest checkpoint there is, unless the folder itself is as new;
    /// whether it did.
    ///
    /// # Errors
    /// [`ArtifactError`] when the store does not answer, or what it has is damaged.
    pub async fn restore_checkpoint(&self, job: JobId, attempt: u32, work: &Path) -> Result<bool, ArtifactError> {
        checkpoints::restore(&self.bucket, job, attempt, work).await
    }

    /// Keeps the part of a log that an attempt has written: the bytes of `path` from `from` on.
    ///
    /// # Errors
    /// [`ArtifactError`] when the file cannot be read, or the store does not take it.
    pub async fn send_log(&self, job: JobId, attempt: u32, path: &Path, from: u64) -> Result<u64, ArtifactError> {
        let mut text = match tokio::fs::read(path).await {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(io_error(path)(error)),
        };
        let length = text.len() as u64;
        text.drain(..usize::try_from(from).unwrap_or(usize::MAX).min(text.len()));
        if !text.is_empty() {
            self.bucket.put(&format!("{}/{attempt}", logs_of_job(job)), text).await?;
        }
        Ok(length)
    }

    /// The next piece of a job's log over all its attempts; empty at its end as it stands.
    ///
    /// # Errors
    /// [`ArtifactError::Objects`] when the store does not answer.
    pub async fn read_log(&self, job: JobId, place: &mut LogPlace) -> Result<Vec<u8>, ArtifactError> {
        let objects = self.bucket.below(&logs_of_job(job)).await?;
        let attempt = |key: &str| key.rsplit('/').next()?.parse::<u32>().ok();
        let mut parts: Vec<_> = objects.iter().filter_map(|object| Some((attempt(&object.key)?, object))).collect();
        parts.sort_by_key(|(attempt, _)| *attempt);
        let reached = place.attempt;
        for (attempt, object) in parts.into_iter().filter(|(attempt, _)| *attempt >= reached) {
            if attempt > place.attempt {
                *place = LogPlace { attempt, bytes: 0 };
            }
            if object.bytes > place.bytes {
                let range = place.bytes..object.bytes.min(place.bytes + CHUNK);
                let chunk = self.bucket.get_range(&object.key, range).await?;
                place.bytes += chunk.len() as u64;
                return Ok(chunk);
            }
        }
        Ok(Vec::new())
    }

    /// Keeps an uploaded text under its file's name.
    ///
    /// # Errors
    /// [`ArtifactError`] when the file cannot be read, or the store does not take it.
    pub async fn send_text(&self, file: &Path) -> Result<(), ArtifactError> {
        let bytes = tokio::fs::metadata(file).await.map_err(io_error(file))?.len();
        self.bucket.upload(file, bytes, &text_key(&name_of(file))).await.map(drop)
    }

    /// Brings an uploaded text into a folder, unless it is there.
    ///
    /// # Errors
    /// [`ArtifactError`] when the store does not have it, or it is not the text with this SHA-256.
    pub async fn bring_text(&self, name: &str, sha256: &str, folder: &Path) -> Result<PathBuf, ArtifactError> {
        let place = folder.join(name);
        if !place.exists() {
            self.bucket.download(&text_key(name), sha256, &place).await?;
        }
        Ok(place)
    }

    /// Removes an uploaded text, if it is there.
    ///
    /// # Errors
    /// [`ArtifactError::Objects`] when the store does not answer.
    pub async fn remove_text(&self, name: &str) -> Result<(), ArtifactError> {
        self.bucket.remove(&[text_key(name)]).await
    }
}

fn name_of(file: &Path) -> String {
    file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
