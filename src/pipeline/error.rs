use crate::{
    checkpoint,
    job::{Failure, FailureCode},
};

/// Why a run ended without a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The observer asked for it.
    #[error("cancelled")]
    Cancelled,
    /// Model files or texts.
    #[error(transparent)]
    Checkpoint(checkpoint::Error),
    /// Anything else, already in words for the user.
    #[error("{0}")]
    Failed(Failure),
}

impl From<checkpoint::Error> for Error {
    fn from(error: checkpoint::Error) -> Self {
        match error {
            checkpoint::Error::Cancelled => Self::Cancelled,
            error => Self::Checkpoint(error),
        }
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        checkpoint::Error::Device(error).into()
    }
}

impl Error {
    /// How a job that met this error ends; `None` for a cancelled run.
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Self::Cancelled => None,
            Self::Checkpoint(error) => Some(error.failure()),
            Self::Failed(failure) => Some(failure.clone()),
        }
    }

    /// A fault of the spec that only shows once the model is known.
    pub fn invalid_spec(message: impl Into<String>) -> Self {
        Self::Failed(Failure::give_up(FailureCode::InvalidSpec, message))
    }

    /// A number that is not finite, or an iteration that did not converge.
    pub fn numerical(message: impl Into<String>) -> Self {
        Self::Failed(Failure::give_up(FailureCode::NumericalFailure, message))
    }

    /// A fault of graspd itself.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::Failed(Failure::give_up(FailureCode::Internal, message))
    }
}
