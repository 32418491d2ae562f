//! API keys: who may do what. Only hashes are kept.

use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::StoreError;
use crate::{clock::UnixMillis, job::Scope};

/// What every key begins with, so that scanners of leaked secrets know one.
pub const KEY_PREFIX: &str = "graspd_";

/// The SHA-256 of a key. A key is some 240 random bits, so that neither salt nor a slow hash is needed, and finding its
/// row by this hash tells nothing of the key by the time it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// Of a key as the client sends it.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }
}

/// A key as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its name for people; not secret.
    pub id: String,
    /// Whose jobs it sees.
    pub tenant: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it ends by itself.
    pub expires_at: Option<UnixMillis>,
    /// When somebody ended it.
    pub revoked_at: Option<UnixMillis>,
}

/// A key to be stored.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Its name for people.
    pub id: String,
    /// Whose jobs it sees.
    pub tenant: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// What is kept of it.
    pub hash: KeyHash,
    /// How long it is valid; for ever when absent.
    pub lifetime: Option<Duration>,
}

/// Keys that survive a restart.
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// Stores a key.
    async fn add_key(&self, key: &NewKey) -> Result<KeyRecord, StoreError>;
    /// The key with this hash, if it is valid now.
    async fn valid_key(&self, hash: &KeyHash) -> Result<Option<KeyRecord>, StoreError>;
    /// A key by its id, valid or not.
    async fn key(&self, id: &str) -> Result<Option<KeyRecord>, StoreError>;
    /// Whether a key was ever made: from then on every request needs one, even once all are revoked.
    async fn has_keys(&self) -> Result<bool, StoreError>;
    /// All keys, oldest first.
    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError>;
    /// Lets a key end `after` a while, unless it ends before that; at once when that is zero. `false` when there is no
    /// such key.
    async fn revoke_key(&self, id: &str, after: Duration) -> Result<bool, StoreError>;
}
