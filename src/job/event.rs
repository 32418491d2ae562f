use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What can happen to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum EventKind {
    /// It waits: new, to be tried again, or resumed.
    #[serde(rename = "job.queued")]
    Queued,
    /// A worker began an attempt.
    #[serde(rename = "job.started")]
    Started,
    /// A new stage, a new layer, or another twentieth of a stage.
    #[serde(rename = "job.progress")]
    Progress,
    /// Somebody asked to pause it while it ran.
    #[serde(rename = "job.pause_requested")]
    PauseRequested,
    /// It stands still until it is resumed.
    #[serde(rename = "job.paused")]
    Paused,
    /// Somebody asked to cancel it while it ran.
    #[serde(rename = "job.cancel_requested")]
    CancelRequested,
    /// Its files are published.
    #[serde(rename = "job.succeeded")]
    Succeeded,
    /// It ended with an error.
    #[serde(rename = "job.failed")]
    Failed,
    /// It was cancelled.
    #[serde(rename = "job.cancelled")]
    Cancelled,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Started,
        Self::Progress,
        Self::PauseRequested,
        Self::Paused,
        Self::CancelRequested,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name used in the API and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "job.queued",
            Self::Started => "job.started",
            Self::Progress => "job.progress",
            Self::PauseRequested => "job.pause_requested",
            Self::Paused => "job.paused",
            Self::CancelRequested => "job.cancel_requested",
            Self::Succeeded => "job.succeeded",
            Self::Failed => "job.failed",
            Self::Cancelled => "job.cancelled",
        }
    }

    /// Whether nothing happens to the job after it, unless somebody resumes a failed one.
    pub const fn is_last(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| format!("'{text}' is no event of a job"))
    }
}
