//! A published file, wherever it lies.

use std::{io, ops::Range, path::PathBuf, time::Duration};

use bytes::Bytes;
use futures_util::stream::BoxStream;

use super::{ArtifactError, objects::Bucket};

/// Where the content of a published file is to be had.
#[derive(Clone, Debug)]
pub enum Content {
    /// A file on this machine.
    File(PathBuf),
    /// An object of a bucket.
    Object(ObjectContent),
}

/// An object of a bucket.
#[derive(Clone, Debug)]
pub struct ObjectContent {
    pub(super) bucket: Bucket,
    pub(super) key: String,
}

impl ObjectContent {
    /// A range of it, as it comes.
    ///
    /// # Errors
    /// [`ArtifactError::Objects`] when the store does not have it, or does not answer.
    pub async fn read(&self, range: Range<u64>) -> Result<BoxStream<'static, io::Result<Bytes>>, ArtifactError> {
        self.bucket.read(&self.key, Some(range)).await
    }

    /// A URL that anybody may fetch it from for a while, where the store can make one.
    ///
    /// # Errors
    /// [`ArtifactError::Objects`] when there are no credentials to sign with.
    pub async fn presigned(&self, valid: Duration) -> Result<Option<String>, ArtifactError> {
        self.bucket.presigned(&self.key, valid).await
    }
}
