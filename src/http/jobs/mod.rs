//! `/v1/jobs`.

mod cancel;
mod create;
mod get;
mod list;

pub(super) use cancel::{__path_cancel_job, cancel_job};
pub(super) use create::{__path_create_job, create_job};
pub(super) use get::{__path_get_job, get_job};
pub(super) use list::{__path_list_jobs, list_jobs};

use super::Problem;
use crate::job::JobId;

/// An id in a path. What cannot be an id is answered like a job that is not there.
pub(super) fn parse_id(text: &str) -> Result<JobId, Problem> {
    text.parse().map_err(|_| Problem::job_not_found())
}
