//! Texts that users have uploaded: what is known of them. The texts themselves are files.

use async_trait::async_trait;

use super::StoreError;
use crate::{
    clock::UnixMillis,
    job::{DatasetId, TextFormat},
};

/// An uploaded text as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetRecord {
    /// Identity.
    pub id: DatasetId,
    /// Whose it is.
    pub tenant: String,
    /// What its owner calls it.
    pub name: String,
    /// How it is to be read.
    pub format: TextFormat,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content, in lower-case hexadecimal.
    pub sha256: String,
    /// When it was uploaded, as the store sets it.
    pub created_at: UnixMillis,
}

/// Uploaded texts that survive a restart.
#[async_trait]
pub trait DatasetStore: Send + Sync {
    /// Stores what is known of a text; sets its time.
    async fn add_dataset(&self, dataset: &DatasetRecord) -> Result<DatasetRecord, StoreError>;
    /// Finds a text.
    async fn dataset(&self, id: &DatasetId) -> Result<Option<DatasetRecord>, StoreError>;
    /// The texts of a tenant, newest first.
    async fn datasets(&self, tenant: &str) -> Result<Vec<DatasetRecord>, StoreError>;
    /// Bytes of all texts of a tenant.
    async fn dataset_bytes(&self, tenant: &str) -> Result<u64, StoreError>;
    /// Forgets a text. `false` when there is none.
    async fn remove_dataset(&self, id: &DatasetId) -> Result<bool, StoreError>;
}
