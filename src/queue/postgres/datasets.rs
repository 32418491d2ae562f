//! Uploaded texts on PostgreSQL.

use async_trait::async_trait;

use super::{PostgresStore, row};
use crate::{
    job::DatasetId,
    queue::{DatasetRecord, DatasetStore, StoreError},
};

macro_rules! columns {
    () => {
        "id, tenant, name, format, bytes, sha256, created_at"
    };
}

const ADD: &str = concat!(
    "INSERT INTO datasets (id, tenant, name, format, bytes, sha256, created_at) \
     VALUES ($1, $2, $3, $4, $5, $6, graspd_now()) RETURNING ",
    columns!()
);
const GET: &str = concat!("SELECT ", columns!(), " FROM datasets WHERE id = $1");
const LIST: &str = concat!("SELECT ", columns!(), " FROM datasets WHERE tenant = $1 ORDER BY id DESC");
const BYTES: &str = "SELECT COALESCE(SUM(bytes), 0)::bigint AS bytes FROM datasets WHERE tenant = $1";
const REMOVE: &str = "DELETE FROM datasets WHERE id = $1 RETURNING id";

#[async_trait]
impl DatasetStore for PostgresStore {
    async fn add_dataset(&self, dataset: &DatasetRecord) -> Result<DatasetRecord, StoreError> {
        let query = sqlx::query(ADD)
            .bind(dataset.id.to_string())
            .bind(dataset.tenant.clone())
            .bind(dataset.name.clone())
            .bind(dataset.format.as_str())
            .bind(i64::try_from(dataset.bytes).unwrap_or(i64::MAX))
            .bind(dataset.sha256.clone());
        row::dataset(&self.write(query).await?.ok_or(sqlx::Error::RowNotFound)?)
    }

    async fn dataset(&self, id: &DatasetId) -> Result<Option<DatasetRecord>, StoreError> {
        let row = self.one(sqlx::query(GET).bind(id.to_string())).await?;
        row.as_ref().map(row::dataset).transpose()
    }

    async fn datasets(&self, tenant: &str) -> Result<Vec<DatasetRecord>, StoreError> {
        self.all(sqlx::query(LIST).bind(tenant.to_owned())).await?.iter().map(row::dataset).collect()
    }

    async fn dataset_bytes(&self, tenant: &str) -> Result<u64, StoreError> {
        let row = self.one(sqlx::query(BYTES).bind(tenant.to_owned())).await?;
        row::total(&row.ok_or(sqlx::Error::RowNotFound)?)
    }

    async fn remove_dataset(&self, id: &DatasetId) -> Result<bool, StoreError> {
        Ok(self.write(sqlx::query(REMOVE).bind(id.to_string())).await?.is_some())
    }
}
