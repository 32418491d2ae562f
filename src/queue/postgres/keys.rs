//! Keys on PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;

use super::{PostgresStore, millis, row};
use crate::queue::{KeyHash, KeyRecord, KeyStore, NewKey, StoreError, row::Columns};

macro_rules! columns {
    () => {
        "id, tenant, scopes, created_at, expires_at, revoked_at"
    };
}

const ADD: &str = concat!(
    "INSERT INTO keys (id, tenant, scopes, hash, created_at, expires_at) \
     VALUES ($1, $2, $3, $4, graspd_now(), graspd_now() + $5) RETURNING ",
    columns!()
);
const VALID: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM keys WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > graspd_now())"
);
const GET: &str = concat!("SELECT ", columns!(), " FROM keys WHERE id = $1");
const ANY: &str = "SELECT EXISTS (SELECT 1 FROM keys) AS found";
const LIST: &str = concat!("SELECT ", columns!(), " FROM keys ORDER BY created_at, id");
/// Of nothing and a time, LEAST takes the time.
const REVOKE: &str = "UPDATE keys SET \
     revoked_at = CASE WHEN $2 > 0 THEN revoked_at ELSE COALESCE(revoked_at, graspd_now()) END, \
     expires_at = LEAST(expires_at, graspd_now() + $2) WHERE id = $1 RETURNING id";

#[async_trait]
impl KeyStore for PostgresStore {
    async fn add_key(&self, key: &NewKey) -> Result<KeyRecord, StoreError> {
        let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.as_str()).collect();
        let query = sqlx::query(ADD)
            .bind(key.id.clone())
            .bind(key.tenant.clone())
            .bind(scopes.join(" "))
            .bind(key.hash.0.to_vec())
            .bind(key.lifetime.map(millis));
        row::key(&self.write(query).await?.ok_or(sqlx::Error::RowNotFound)?)
    }

    async fn valid_key(&self, hash: &KeyHash) -> Result<Option<KeyRecord>, StoreError> {
        let row = self.one(sqlx::query(VALID).bind(hash.0.to_vec())).await?;
        row.as_ref().map(row::key).transpose()
    }

    async fn key(&self, id: &str) -> Result<Option<KeyRecord>, StoreError> {
        let row = self.one(sqlx::query(GET).bind(id.to_owned())).await?;
        row.as_ref().map(row::key).transpose()
    }

    async fn has_keys(&self) -> Result<bool, StoreError> {
        let row = self.one(sqlx::query(ANY)).await?.ok_or(sqlx::Error::RowNotFound)?;
        Ok(row.flag("found")?)
    }

    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.all(sqlx::query(LIST)).await?.iter().map(row::key).collect()
    }

    async fn revoke_key(&self, id: &str, after: Duration) -> Result<bool, StoreError> {
        let query = sqlx::query(REVOKE).bind(id.to_owned()).bind(millis(after));
        Ok(self.write(query).await?.is_some())
    }
}
