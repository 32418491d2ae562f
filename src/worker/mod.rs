//! Running: slots claim jobs, run each in a child process, publish what it made, and settle.
//!
//! A slot never does the work itself. A model file that aborts the loader, an out-of-memory kill or a wedged device
//! costs one child process; the server goes on. Whatever a slot writes to the store carries its attempt number, so a
//! slot that lost its lease changes nothing.
//!
//! - `pool`: the slots, and sweeping up behind jobs that are over.
//! - `slot`: claim → run → publish → settle.
//! - `supervisor`: one child process from spawn to exit.
//! - `presence`: whether anybody works on a data folder.
//! - `shipping`: what other machines need to know of an attempt.
//! - `retention`: how long jobs that are over are kept.
//! - [`child`]: the other end of the pipe.
//! - [`protocol`]: what is said on it.

pub mod child;
mod folder;
mod lease;
mod pool;
mod presence;
pub mod protocol;
mod retention;
mod shipping;
mod slot;
mod supervisor;

use std::{ffi::OsString, fmt, path::PathBuf, time::Duration};

pub use pool::{run, run_once};
pub use presence::Presence;
pub use retention::Retention;
pub use shipping::Elsewhere;

/// Histogram of how long attempts take, by outcome.
pub const ATTEMPT_SECONDS: &str = "graspd_attempt_seconds";
/// Upper bounds of its buckets, in seconds: from the sample model to a night.
pub const ATTEMPT_SECONDS_BUCKETS: [f64; 9] = [1.0, 5.0, 15.0, 60.0, 300.0, 1_200.0, 3_600.0, 14_400.0, 43_200.0];

/// Histogram of how long stages take, by stage; its buckets are those of attempts.
pub const STAGE_SECONDS: &str = "graspd_stage_seconds";
/// Counter of the bytes that were published.
pub const PUBLISHED_BYTES: &str = "graspd_published_bytes_total";

/// What a process is called in the store: its machine and its number there.
pub fn name() -> String {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "graspd".to_owned());
    format!("{}/{}", machine.trim(), std::process::id())
}

/// How jobs are run on this machine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The executable of a child process.
    pub program: PathBuf,
    /// What its arguments start with; `--work`, `--output`, `--device` and `--parent` follow.
    pub arguments: Vec<OsString>,
    /// Changes to its environment.
    pub environment: Environment,
    /// Holds a folder per job, for checkpoints between attempts.
    pub work_dir: PathBuf,
    /// Holds a log per job.
    pub log_dir: PathBuf,
    /// `cpu`, `cuda:N` or `metal`.
    pub devices: Vec<String>,
    /// Jobs at once on each device.
    pub slots_per_device: usize,
    /// Names this process in the store.
    pub worker: String,
    /// What of ended jobs is kept.
    pub retention: Retention,
    /// Whether this process deletes what need not be kept, for all machines.
    pub keeps_house: bool,
    /// What is shared with other machines, where there are any.
    pub elsewhere: Option<Elsewhere>,
    /// Bytes that a job may use in each slot.
    pub slot_memory: u64,
    /// Every wait and limit.
    pub timing: Timing,
}

/// Variables that are set, or, with `None`, removed.
#[derive(Clone, Default)]
pub struct Environment(pub Vec<(OsString, Option<OsString>)>);

impl fmt::Debug for Environment {
    // Names only, because a value may be a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// Every wait and limit of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a claim lasts without a beat.
    pub lease: Duration,
    /// Between beats. A beat is also how a cancel is noticed, hence short.
    pub beat: Duration,
    /// Least time between two writes of progress inside a stage.
    pub progress: Duration,
    /// A child that says nothing at all for so long is dead to the world.
    pub silence: Duration,
    /// A child whose progress does not change for so long is stuck.
    pub stall: Duration,
    /// From SIGTERM to SIGKILL.
    pub kill: Duration,
    /// From SIGTERM to SIGKILL when the server stops, so that a step under way can be kept.
    pub drain: Duration,
    /// Between looks into an empty queue.
    pub idle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            beat: Duration::from_secs(2),
            progress: Duration::from_secs(1),
            silence: Duration::from_mins(1),
            stall: Duration::from_mins(10),
            kill: Duration::from_secs(10),
            drain: Duration::from_secs(20),
            idle: Duration::from_millis(500),
        }
    }
}
