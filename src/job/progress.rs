use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a job stands. `queued → running → succeeded | failed | cancelled`, and `paused` in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted and waiting for a free slot.
    Queued,
    /// A worker holds its lease.
    Running,
    /// It stands still until somebody resumes or cancels it.
    Paused,
    /// Its artifacts are published.
    Succeeded,
    /// It ended with an error, which the job shows.
    Failed,
    /// It was cancelled and published nothing.
    Cancelled,
}

impl Status {
    /// All states, in the order a job goes through them.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Running, Self::Paused, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The name used in the API and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the job has ended; only a failed one can begin again, when it is resumed.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| {
            format!("unknown status '{text}': one of queued, running, paused, succeeded, failed, cancelled")
        })
    }
}

/// What a running job is doing; the order is the order of a whole job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Fetching the model's files from the hub (bytes).
    Download,
    /// Reading the configuration and the weights (layers).
    Load,
    /// Reading and tokenising the calibration text (windows).
    Calibrate,
    /// Measuring how much each layer changes its input (windows).
    Influence,
    /// Summing the gradients of the chosen matrices (windows).
    Gradients,
    /// Decomposing and truncating the matrices (matrices).
    Factorize,
    /// Training what was kept (steps).
    Recover,
    /// Scoring the model (windows).
    Evaluate,
    /// Writing the checkpoint folder (tensors).
    Export,
    /// Making the folder visible under the job's id (files).
    Publish,
}

impl Stage {
    /// The name used in the API, the report and the logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Download => "download",
            Self::Load => "load",
            Self::Calibrate => "calibrate",
            Self::Influence => "influence",
            Self::Gradients => "gradients",
            Self::Factorize => "factorize",
            Self::Recover => "recover",
            Self::Evaluate => "evaluate",
            Self::Export => "export",
            Self::Publish => "publish",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How recovery goes, after its last finished step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Training {
    /// Mean loss of the targets of the last step's batch, before the step; nats per token.
    pub loss: f64,
    /// Learning rate of the step at work.
    pub learning_rate: f64,
    /// Tokens learned from per second of training so far; padding is not counted.
    pub tokens_per_second: f64,
}

impl fmt::Display for Training {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "loss {:.3}, lr {:.1e}, {:.0} tokens/s", self.loss, self.learning_rate, self.tokens_per_second)
    }
}

/// How far a stage is: `done` of `total` units (see [`Stage`] for the unit).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// The stage at work.
    pub stage: Stage,
    /// Units finished.
    pub done: u64,
    /// Units in the whole stage.
    pub total: u64,
    /// The layer at work, where a stage goes layer by layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// What inside the layer or the stage is at work: `mlp`, `self_attn`, a data set, a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// How the training goes, from its second step on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
    /// Seconds until the whole job should be done, by what is left of it and its pace so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

impl Progress {
    /// Progress of a stage that has no inner structure.
    pub const fn new(stage: Stage, done: u64, total: u64) -> Self {
        Self { stage, done, total, layer: None, part: None, training: None, seconds_left: None }
    }

    /// Whether the other tells of the same place; what is said to be left may differ.
    pub fn is_at(&self, other: &Self) -> bool {
        *self == Self { seconds_left: self.seconds_left, ..other.clone() }
    }
}
