use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a job failed, as a stable code that scripts may compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The model's folder or repository does not exist, or is not readable with the server's token.
    ModelNotFound,
    /// The model's files are missing, truncated, inconsistent or hold numbers that are not finite.
    InvalidModel,
    /// The model's architecture or an option of it is not implemented.
    UnsupportedModel,
    /// A data set's file or split does not exist.
    DatasetNotFound,
    /// A data set's file cannot be read, or holds too little text.
    InvalidDataset,
    /// The job asks something that does not fit this model (a layer out of range, a size it cannot reach).
    InvalidSpec,
    /// A gradient, a loss or a decomposition was not finite or did not converge.
    NumericalFailure,
    /// The hub did not answer or broke the transfer off, again and again.
    HubUnavailable,
    /// The job needs more memory than the machine or its limit has.
    OutOfMemory,
    /// The disk is full.
    DiskFull,
    /// The device of the slot is missing or failed.
    DeviceFailed,
    /// The worker process died three times in a row without finishing a step.
    WorkerCrashed,
    /// No stage made progress for longer than the stall limit, three times in a row.
    Stalled,
    /// A fault of graspd itself; the log has the details.
    Internal,
}

impl FailureCode {
    /// The code as it appears in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ModelNotFound => "model_not_found",
            Self::InvalidModel => "invalid_model",
            Self::UnsupportedModel => "unsupported_model",
            Self::DatasetNotFound => "dataset_not_found",
            Self::InvalidDataset => "invalid_dataset",
            Self::InvalidSpec => "invalid_spec",
            Self::NumericalFailure => "numerical_failure",
            Self::HubUnavailable => "hub_unavailable",
            Self::OutOfMemory => "out_of_memory",
            Self::DiskFull => "disk_full",
            Self::DeviceFailed => "device_failed",
            Self::WorkerCrashed => "worker_crashed",
            Self::Stalled => "stalled",
            Self::Internal => "internal",
        }
    }
}

/// What to do with a job that failed: decided where the cause is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Another attempt may succeed: the job goes back to the queue, up to the retry limit.
    Retry,
    /// Another attempt would fail the same way.
    GiveUp,
}

/// Why an attempt failed, in words for the user, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable code.
    pub code: FailureCode,
    /// What is wrong and what to do, naming the field or the file.
    pub message: String,
    /// Whether another attempt is worth it.
    pub decision: Decision,
    /// Bytes of memory a slot must have to run the job, where that is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_needed: Option<u64>,
}

impl Failure {
    /// A failure that another attempt would meet again.
    pub fn give_up(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), decision: Decision::GiveUp, memory_needed: None }
    }

    /// A failure that may pass.
    pub fn retry(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), decision: Decision::Retry, memory_needed: None }
    }

    /// The same, of a job that a slot with `bytes` of memory could run.
    #[must_use]
    pub fn needing(self, bytes: u64) -> Self {
        Self { memory_needed: Some(bytes), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}
