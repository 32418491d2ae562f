use std::path::{Path, PathBuf};

use crate::job::{Failure, FailureCode};

/// Model files or texts could not be found, read, understood or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A model folder, repository or revision does not exist or may not be read.
    #[error("{0}")]
    NotFound(String),
    /// A text does not exist, or not in the split that is asked for.
    #[error("{0}")]
    DatasetNotFound(String),
    /// A text cannot be read or holds nothing.
    #[error("{0}")]
    InvalidDataset(String),
    /// A file is missing, truncated, inconsistent or holds what it must not.
    #[error("{path}: {what}")]
    Invalid {
        /// The file, relative to the model's folder where there is one.
        path: PathBuf,
        /// What is wrong with it and what would be right.
        what: String,
    },
    /// An architecture, a data type or an option that graspd does not implement.
    #[error("{0}")]
    Unsupported(String),
    /// A device that this build or this machine does not have.
    #[error("{0}")]
    NoDevice(String),
    /// The hub did not answer properly, again and again.
    #[error("{0}")]
    HubUnavailable(String),
    /// The hub does not let us write, or not this.
    #[error("{0}")]
    HubRefused(String),
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The device refused a tensor.
    #[error("device: {0}")]
    Device(#[from] candle_core::Error),
    /// The job was cancelled meanwhile.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// A file that is wrong.
    pub fn invalid(path: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self::Invalid { path: path.into(), what: what.into() }
    }

    /// Wraps what the file system said about `path`.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    /// How a job that met this error ends.
    pub fn failure(&self) -> Failure {
        let text = self.to_string();
        match self {
            Self::NotFound(_) => Failure::give_up(FailureCode::ModelNotFound, text),
            Self::DatasetNotFound(_) => Failure::give_up(FailureCode::DatasetNotFound, text),
            Self::InvalidDataset(_) => Failure::give_up(FailureCode::InvalidDataset, text),
            Self::Invalid { .. } => Failure::give_up(FailureCode::InvalidModel, text),
            Self::Unsupported(_) => Failure::give_up(FailureCode::UnsupportedModel, text),
            Self::HubUnavailable(_) => Failure::retry(FailureCode::HubUnavailable, text),
            Self::HubRefused(_) => Failure::give_up(FailureCode::HubUnavailable, text),
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Failure::retry(FailureCode::DiskFull, text)
            }
            // A link that leads to itself will do so again.
            Self::Io { source, .. } if source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                Failure::give_up(FailureCode::InvalidModel, text)
            }
            Self::Io { .. } | Self::Cancelled => Failure::retry(FailureCode::Internal, text),
            Self::Device(_) | Self::NoDevice(_) => Failure::give_up(FailureCode::DeviceFailed, text),
        }
    }
}
