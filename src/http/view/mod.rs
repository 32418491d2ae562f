//! What replies look like. The client reads the same types.

mod dataset;
mod event;
mod plan;

use std::collections::BTreeMap;

pub use dataset::{DatasetList, DatasetView};
pub(super) use dataset::{JsonLines, Text};
pub use event::{EventList, EventView};
pub use plan::{CapabilitiesView, LimitsView, PlanView};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    artifact::Artifact,
    clock::UnixMillis,
    job::{FailureCode, JobId, JobSpec, Progress, Stage, Status, Training, spec::JobBody},
    queue::{JobRecord, Page},
};

/// Marks a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobObject {
    /// The only value.
    Job,
}

/// Marks a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ListObject {
    /// The only value.
    List,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Job)]
pub struct JobView {
    /// Always `job`.
    pub object: JobObject,
    /// A UUID version 7.
    #[schema(value_type = String, format = "uuid", example = "01890a5d-ac96-774b-bcce-b302099a8057")]
    pub id: JobId,
    /// Where it stands.
    pub status: Status,
    /// What it is doing, or did last.
    pub stage: Option<Stage>,
    /// How far that stage is.
    pub progress: Option<ProgressView>,
    /// When the whole job should be done, by what is left of it and its pace so far, in seconds since
    /// 1970-01-01T00:00:00Z; null while nothing can be said.
    pub eta: Option<i64>,
    /// When the stage at work should end, by its pace so far.
    pub stage_eta: Option<i64>,
    /// When it was submitted, in seconds since 1970-01-01T00:00:00Z.
    #[schema(example = 1_789_000_000)]
    pub created_at: i64,
    /// When it was first started.
    pub started_at: Option<i64>,
    /// When it succeeded, failed or was cancelled.
    pub finished_at: Option<i64>,
    /// Of your jobs that wait, the highest goes first.
    pub priority: i64,
    /// What a queued job waits for that no worker which is up can give it; null where it only waits for its turn.
    pub waits_for: Option<String>,
    /// How often it was started.
    pub attempt: u32,
    /// Whether it runs and was asked to stop.
    pub cancel_requested: bool,
    /// Whether it runs and was asked to stop after the step under way.
    pub pause_requested: bool,
    /// Why it failed.
    pub error: Option<ErrorView>,
    /// What it was asked to do, with every default filled in.
    #[schema(value_type = JobBody)]
    pub spec: JobSpec,
    /// The labels it was submitted with.
    pub metadata: BTreeMap<String, String>,
}

/// How far a stage is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = StageProgress, example = json!({"done": 12, "total": 32, "layer": 21, "part": "mlp"}))]
pub struct ProgressView {
    /// Units finished.
    pub done: u64,
    /// Units in the whole stage.
    pub total: u64,
    /// The layer at work, where a stage goes layer by layer.
    pub layer: Option<usize>,
    /// What inside the layer or the stage is at work.
    pub part: Option<String>,
    /// How recovery goes, from its second step on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = JobError)]
pub struct ErrorView {
    /// Stable code.
    pub code: FailureCode,
    /// What is wrong and what to do.
    pub message: String,
}

/// One page of jobs, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobList {
    /// Always `list`.
    pub object: ListObject,
    /// The jobs.
    pub data: Vec<JobView>,
    /// Whether there are more: ask again with `after` set to the last id.
    pub has_more: bool,
}

/// A published file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Artifact)]
pub struct ArtifactView {
    /// Path inside the job's folder.
    #[schema(example = "model.safetensors")]
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content, in lower-case hexadecimal; also its `ETag`.
    pub sha256: String,
    /// Where it is, relative to the server.
    #[schema(example = "/v1/jobs/01890a5d-ac96-774b-bcce-b302099a8057/artifacts/model.safetensors")]
    pub url: String,
}

/// All published files of a job; empty until it has succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactList {
    /// Always `list`.
    pub object: ListObject,
    /// The files, by name.
    pub data: Vec<ArtifactView>,
    /// Always false.
    pub has_more: bool,
}

/// Which graspd this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Version)]
pub struct VersionView {
    /// Always `graspd`.
    pub name: String,
    /// Its version.
    #[schema(example = "0.1.0")]
    pub version: String,
}

const fn seconds(millis: UnixMillis) -> i64 {
    millis.div_euclid(1000)
}

impl From<JobRecord> for JobView {
    fn from(record: JobRecord) -> Self {
        Self {
            object: JobObject::Job,
            eta: eta(&record),
            waits_for: waits_for(&record),
            priority: record.spec.priority,
            stage_eta: stage_eta(&record),
            id: record.id,
            status: record.status,
            stage: record.progress.as_ref().map(|progress| progress.stage),
            progress: record.progress.map(ProgressView::from),
            created_at: seconds(record.created_at),
            started_at: record.started_at.map(seconds),
            finished_at: record.finished_at.map(seconds),
            attempt: record.attempt,
            cancel_requested: record.cancel_requested,
            pause_requested: record.pause_requested,
            error: record.error.map(|error| ErrorView { code: error.code, message: error.message }),
            metadata: record.spec.metadata.clone(),
            spec: record.spec,
        }
    }
}

fn waits_for(record: &JobRecord) -> Option<String> {
    let gibibytes = |bytes: u64| bytes as f64 / (1_u64 << 30) as f64;
    let needed = gibibytes(record.memory_needed);
    match record.largest_slot {
        _ if record.status != Status::Queued => None,
        Some(largest) if largest >= record.memory_needed => None,
        Some(largest) => Some(format!(
            "a slot with {needed:.1} GiB of memory: the largest of the workers that are up has {:.1} GiB",
            gibibytes(largest)
        )),
        None if record.memory_needed > 0 => Some(format!("a worker with {needed:.1} GiB of memory: none is up")),
        None => Some("a worker: none is up".to_owned()),
    }
}

/// What the worker said was left, from when it said so.
fn eta(record: &JobRecord) -> Option<i64> {
    let progress = record.progress.as_ref().filter(|_| record.status == Status::Running)?;
    let left = i64::try_from(progress.seconds_left?).ok()?;
    Some(seconds(record.progress_at?).saturating_add(left))
}

/// The time a stage has taken for what is done of it says how long the rest takes.
fn stage_eta(record: &JobRecord) -> Option<i64> {
    let progress = record.progress.as_ref().filter(|_| record.status == Status::Running)?;
    let (began, now) = (record.stage_started_at?, record.progress_at?);
    let left = progress.total.checked_sub(progress.done)?;
    if progress.done == 0 || now <= began {
        return None;
    }
    let rest = (now - began) as f64 * left as f64 / progress.done as f64;
    Some(seconds(now.saturating_add(rest as i64)))
}

impl From<Progress> for ProgressView {
    fn from(progress: Progress) -> Self {
        Self {
            done: progress.done,
            total: progress.total,
            layer: progress.layer,
            part: progress.part,
            training: progress.training,
        }
    }
}

impl From<Page> for JobList {
    fn from(page: Page) -> Self {
        let data = page.jobs.into_iter().map(JobView::from).collect();
        Self { object: ListObject::List, data, has_more: page.has_more }
    }
}

/// What stays as it is in a path, beside letters and digits.
const IN_A_PATH: AsciiSet = NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The path of a published file, relative to the server.
pub(super) fn artifact_path(job: JobId, name: &str) -> String {
    format!("/v1/jobs/{job}/artifacts/{}", utf8_percent_encode(name, &IN_A_PATH))
}

impl ArtifactList {
    pub(super) fn new(job: JobId, artifacts: Vec<Artifact>) -> Self {
        let view = |artifact: Artifact| ArtifactView {
            url: artifact_path(job, &artifact.name),
            name: artifact.name,
            bytes: artifact.bytes,
            sha256: artifact.sha256,
        };
        Self { object: ListObject::List, data: artifacts.into_iter().map(view).collect(), has_more: false }
    }
}
