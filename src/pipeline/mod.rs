//! The method, stage by stage. Synchronous: cancellation and progress are values in [`Context`].

mod context;
mod error;

pub use context::{Context, Observer, Settings};
pub use error::Error;

use crate::job::{JobSpec, Report};

/// Runs a whole job and fills `context.output` with the finished checkpoint folder.
///
/// What an earlier attempt finished and left in `context.work` is not done again.
///
/// # Errors
/// [`Error`] says what is wrong in words for the user; [`Error::failure`] decides whether to try again.
pub fn run(_spec: &JobSpec, _context: &Context<'_>) -> Result<Report, Error> {
    Err(Error::Failed(crate::job::Failure::give_up(crate::job::FailureCode::Internal, "not built yet")))
}
