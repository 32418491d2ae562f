//! What an ended attempt means for its job. The same rules for every store.

use std::time::Duration;

use super::{JobError, Outcome};
use crate::job::{Decision, Failure, FailureCode, Status};

/// How often a job is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Failures that may pass are met again at most so many times.
    pub retries: u32,
    /// Wait before the first retry; each further one waits four times as long.
    pub first_backoff: Duration,
    /// Deaths in a row, without a finished step between them, that end a job.
    pub crashes: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { retries: 3, first_backoff: Duration::from_secs(5), crashes: 3 }
    }
}

/// What the store knows of a running job when its attempt ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) cancel_requested: bool,
    pub(super) pause_requested: bool,
    pub(super) retries: u32,
    pub(super) crashes_in_a_row: u32,
    /// Bytes, as in [`super::JobRecord`].
    pub(super) memory_needed: u64,
    pub(super) largest_slot: u64,
}

/// Where the job goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It has ended.
    Over { status: Status, error: Option<JobError> },
    /// Back to the queue, claimable after `delay`, or, as somebody asked, aside as paused.
    Again { status: Status, delay: Duration, retries: u32, crashes_in_a_row: u32, memory_needed: u64 },
}

impl Next {
    const fn over(status: Status) -> Self {
        Self::Over { status, error: None }
    }

    fn failed(code: FailureCode, failure: &Failure) -> Self {
        Self::Over { status: Status::Failed, error: Some(JobError { code, message: failure.message.clone() }) }
    }
}

impl RetryPolicy {
    /// A success stands even when a cancel was asked for: its folder is already published. Anything else yields to it.
    pub(super) fn next(&self, standing: Standing, outcome: &Outcome) -> Next {
        let Standing { cancel_requested, pause_requested, retries, crashes_in_a_row, memory_needed, largest_slot } =
            standing;
        let status = if pause_requested { Status::Paused } else { Status::Queued };
        let again =
            |delay, retries, crashes_in_a_row| Next::Again { status, delay, retries, crashes_in_a_row, memory_needed };
        match outcome {
            Outcome::Succeeded => Next::over(Status::Succeeded),
            Outcome::Cancelled => Next::over(Status::Cancelled),
            _ if cancel_requested => Next::over(Status::Cancelled),
            // A pause that was taken back meanwhile is no more than a release.
            Outcome::Released | Outcome::Paused => again(Duration::ZERO, retries, crashes_in_a_row),
            // Another worker has the room: the job waits for it, and is never tried again where it has none.
            Outcome::Failed(Failure { memory_needed: Some(needed), .. })
                if (memory_needed + 1..=largest_slot).contains(needed) =>
            {
                let delay = Duration::ZERO;
                Next::Again { status, delay, retries, crashes_in_a_row, memory_needed: *needed }
            }
            Outcome::Failed(failure) => match failure.decision {
                Decision::Retry if retries < self.retries => {
                    again(self.backoff(retries), retries + 1, crashes_in_a_row)
                }
                Decision::Retry | Decision::GiveUp => Next::failed(failure.code, failure),
            },
            Outcome::Crashed(_) if crashes_in_a_row + 1 < self.crashes => {
                again(Duration::ZERO, retries, crashes_in_a_row + 1)
            }
            Outcome::Crashed(failure) => Next::failed(crash_code(failure.code), failure),
        }
    }

    /// Whether no request and no count changes what a job becomes by this outcome.
    pub(super) const fn ends_in_any_case(outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::Succeeded | Outcome::Cancelled)
    }

    fn backoff(&self, retries: u32) -> Duration {
        self.first_backoff.saturating_mul(4_u32.saturating_pow(retries))
    }
}

/// A child that stalled is shown as such; every other silent death is a crash.
const fn crash_code(code: FailureCode) -> FailureCode {
    match code {
        FailureCode::Stalled => FailureCode::Stalled,
        _ => FailureCode::WorkerCrashed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_is_too_large_here_waits_for_a_slot_that_has_room_if_there_is_one() {
        let policy = RetryPolicy::default();
        let too_large = Failure::give_up(FailureCode::OutOfMemory, "too large").needing(40);
        let next = |memory_needed, largest_slot| {
            let standing = Standing { memory_needed, largest_slot, ..Standing::default() };
            match policy.next(standing, &Outcome::Failed(too_large.clone())) {
                Next::Again { memory_needed, .. } => Some(memory_needed),
                Next::Over { .. } => None,
            }
        };
        assert_eq!(next(0, 40), Some(40));
        assert_eq!(next(0, 39), None, "nobody has the room");
        assert_eq!(next(40, 64), None, "it was given what it said it needed");
    }

    fn crash() -> Outcome {
        Outcome::Crashed(Failure::retry(FailureCode::WorkerCrashed, "killed by signal 9"))
    }

    #[test]
    fn each_retry_waits_longer_until_there_are_none() {
        let policy = RetryPolicy::default();
        let outcome = Outcome::Failed(Failure::retry(FailureCode::HubUnavailable, "no answer"));
        let mut standing = Standing::default();
        let mut waits = Vec::new();
        while let Next::Again { delay, retries, .. } = policy.next(standing, &outcome) {
            waits.push(delay.as_secs());
            standing.retries = retries;
        }
        assert_eq!(waits, [5, 20, 80]);
    }

    #[test]
    fn the_third_crash_in_a_row_ends_the_job() {
        let policy = RetryPolicy::default();
        let second = policy.next(Standing { crashes_in_a_row: 1, ..Standing::default() }, &crash());
        assert_eq!(
            second,
            Next::Again {
                status: Status::Queued,
                delay: Duration::ZERO,
                retries: 0,
                crashes_in_a_row: 2,
                memory_needed: 0
            }
        );
        let third = policy.next(Standing { crashes_in_a_row: 2, ..Standing::default() }, &crash());
        let error = JobError { code: FailureCode::WorkerCrashed, message: "killed by signal 9".into() };
        assert_eq!(third, Next::Over { status: Status::Failed, error: Some(error) });
    }

    #[test]
    fn a_pause_sets_aside_what_would_run_again() {
        let policy = RetryPolicy::default();
        let standing = Standing { pause_requested: true, ..Standing::default() };
        for outcome in [Outcome::Paused, Outcome::Released, crash()] {
            let Next::Again { status, .. } = policy.next(standing, &outcome) else { panic!("{outcome:?}") };
            assert_eq!(status, Status::Paused, "{outcome:?}");
        }
        let Next::Again { status, .. } = policy.next(Standing::default(), &Outcome::Paused) else { panic!() };
        assert_eq!(status, Status::Queued, "the pause was taken back");
    }

    #[test]
    fn a_cancel_wins_over_everything_but_success() {
        let policy = RetryPolicy::default();
        let standing = Standing { cancel_requested: true, ..Standing::default() };
        let failed = Outcome::Failed(Failure::give_up(FailureCode::InvalidModel, "no"));
        for outcome in [Outcome::Cancelled, Outcome::Released, crash(), failed] {
            assert_eq!(policy.next(standing, &outcome), Next::over(Status::Cancelled), "{outcome:?}");
        }
        assert_eq!(policy.next(standing, &Outcome::Succeeded), Next::over(Status::Succeeded));
    }
}
