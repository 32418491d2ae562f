use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ListObject, seconds};
use crate::{job::TextFormat, queue::DatasetRecord};

/// Marks a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DatasetObject {
    /// The only value.
    Dataset,
}

/// An uploaded data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Dataset)]
pub struct DatasetView {
    /// Always `dataset`.
    pub object: DatasetObject,
    /// What a job names it by.
    #[schema(example = "ds_0199a5f09c1b7c3e8a4d2f6b1c0e9d87")]
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// How it is read.
    pub format: TextFormat,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content, in lower-case hexadecimal.
    pub sha256: String,
    /// When it was uploaded, in seconds since 1970-01-01T00:00:00Z.
    #[schema(example = 1_789_000_000)]
    pub created_at: i64,
}

/// An uploaded text, as it is.
#[derive(ToSchema)]
#[schema(value_type = String, min_length = 1, example = "The quick brown fox jumps over the lazy dog.\n")]
#[expect(dead_code, reason = "describes a body that is never held in one piece")]
pub(in crate::http) struct Text(String);

/// An uploaded text, an object a line.
#[derive(ToSchema)]
#[schema(value_type = serde_json::Value)]
#[expect(dead_code, reason = "describes a body that is never held in one piece")]
pub(in crate::http) struct JsonLines(String);

/// All uploaded data sets, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatasetList {
    /// Always `list`.
    pub object: ListObject,
    /// The data sets.
    pub data: Vec<DatasetView>,
    /// Always false.
    pub has_more: bool,
}

impl From<DatasetRecord> for DatasetView {
    fn from(record: DatasetRecord) -> Self {
        Self {
            object: DatasetObject::Dataset,
            id: record.id.to_string(),
            name: record.name,
            format: record.format,
            bytes: record.bytes,
            sha256: record.sha256,
            created_at: seconds(record.created_at),
        }
    }
}
