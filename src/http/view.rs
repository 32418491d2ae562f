//! What callers see.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    artifact::Artifact,
    clock::UnixMillis,
    job::{JobId, Progress, Stage, Status, spec::JobBody},
    queue::JobRecord,
};

/// A job.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    /// Always `job`.
    #[schema(example = "job")]
    pub object: String,
    /// Identity, a UUID.
    #[schema(example = "01890a5d-ac96-774b-bcce-b302099a8057")]
    pub id: String,
    /// Where it stands.
    pub status: Status,
    /// What it is doing, or did last.
    pub stage: Option<Stage>,
    /// How far it is.
    pub progress: Option<Progress>,
    /// Submitted, in seconds since 1970.
    #[schema(example = 1_795_000_000)]
    pub created_at: i64,
    /// First claimed by a worker.
    pub started_at: Option<i64>,
    /// Ended.
    pub finished_at: Option<i64>,
    /// How often it was claimed.
    pub attempt: u32,
    /// Whether a cancel was asked for.
    pub cancel_requested: bool,
    /// Why it failed.
    pub error: Option<ErrorView>,
    /// The spec with every default filled in.
    #[schema(value_type = JobBody)]
    pub spec: serde_json::Value,
    /// The user's own labels.
    pub metadata: BTreeMap<String, String>,
}

/// Why a job failed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorView {
    /// Stable code.
    #[schema(example = "model_not_found")]
    pub code: String,
    /// For people.
    pub message: String,
}

/// A file of a published folder.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ArtifactView {
    /// Path inside the folder.
    #[schema(example = "model.safetensors")]
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// Where to get it, relative to the server.
    pub url: String,
}

/// One page of a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct List<T> {
    /// Always `list`.
    #[schema(example = "list")]
    pub object: String,
    /// The entries.
    pub data: Vec<T>,
    /// Whether there are more after the last one.
    pub has_more: bool,
}

impl<T> List<T> {
    /// A page.
    pub fn new(data: Vec<T>, has_more: bool) -> Self {
        Self { object: "list".to_owned(), data, has_more }
    }
}

const fn seconds(time: UnixMillis) -> i64 {
    time.div_euclid(1000)
}

impl From<JobRecord> for JobView {
    fn from(record: JobRecord) -> Self {
        Self {
            object: "job".to_owned(),
            id: record.id.to_string(),
            status: record.status,
            stage: record.progress.as_ref().map(|progress| progress.stage),
            progress: record.progress,
            created_at: seconds(record.created_at),
            started_at: record.started_at.map(seconds),
            finished_at: record.finished_at.map(seconds),
            attempt: record.attempt,
            cancel_requested: record.cancel_requested,
            error: record.error.map(|error| ErrorView { code: error.code.as_str().to_owned(), message: error.message }),
            spec: serde_json::to_value(JobBody::from(&record.spec)).unwrap_or_default(),
            metadata: record.spec.metadata,
        }
    }
}

/// What a path segment may hold unescaped.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

impl ArtifactView {
    /// A file of a job.
    pub fn new(job: JobId, artifact: Artifact) -> Self {
        let url = format!("/v1/jobs/{job}/artifacts/{}", utf8_percent_encode(&artifact.name, SEGMENT));
        Self { name: artifact.name, bytes: artifact.bytes, sha256: artifact.sha256, url }
    }
}
