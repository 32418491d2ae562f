//! `Idempotency-Key`: a request that is sent again makes no second job.

use axum::{extract::FromRequestParts, http::request::Parts};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::ApiError;
use crate::{artifact::hexadecimal, queue::Idempotency};

const HEADER: &str = "idempotency-key";
const LONGEST: usize = 255;

/// The key of a request, if it has one.
pub(super) struct IdempotencyKey(Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut values = parts.headers.get_all(HEADER).iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        let plain =
            |key: &&str| (1..=LONGEST).contains(&key.len()) && key.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let key = value.to_str().ok().filter(plain).filter(|_| values.next().is_none());
        key.map(|key| Self(Some(key.to_owned()))).ok_or(ApiError::InvalidIdempotencyKey)
    }
}

impl IdempotencyKey {
    /// The key with what it was sent with. That is the meaning of the body, not its bytes: a client may write the same
    /// fields in another order the second time.
    pub(super) fn sent_with(self, body: &impl Serialize) -> Option<Idempotency> {
        let key = self.0?;
        let text = serde_json::to_vec(body).unwrap_or_default();
        Some(Idempotency { key, fingerprint: hexadecimal(&Sha256::digest(text)) })
    }
}
