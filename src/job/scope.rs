use std::{fmt, str::FromStr};

/// Something a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// See jobs and fetch what they have published.
    JobsRead,
    /// Submit, pause, resume, cancel, publish and delete jobs.
    JobsWrite,
    /// See uploaded data sets.
    DatasetsRead,
    /// Upload and delete data sets.
    DatasetsWrite,
    /// Read the metrics of the whole service.
    MetricsRead,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 5] =
        [Self::JobsRead, Self::JobsWrite, Self::DatasetsRead, Self::DatasetsWrite, Self::MetricsRead];

    /// How it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JobsRead => "jobs:read",
            Self::JobsWrite => "jobs:write",
            Self::DatasetsRead => "datasets:read",
            Self::DatasetsWrite => "datasets:write",
            Self::MetricsRead => "metrics:read",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|scope| scope.as_str()).collect();
            format!("'{text}' is no scope: use {}", known.join(", "))
        })
    }
}
