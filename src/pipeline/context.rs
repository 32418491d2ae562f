use std::path::{Path, PathBuf};

use super::{Error, forecast::Leg};
use crate::{checkpoint::HubSettings, job::Progress};

/// Where models, texts and the device are: what a machine adds to a job's spec.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `file:NAME` models are folders under this one.
    pub models_dir: PathBuf,
    /// Folders that jobs have published, by id: what `job:ID` models are.
    pub published_dir: PathBuf,
    /// Texts: `<name>/<split>.{txt,jsonl,json}`, and `file:NAME` texts.
    pub datasets_dir: PathBuf,
    /// The hub.
    pub hub: HubSettings,
    /// `cpu`, `cuda:N` or `metal`.
    pub device: String,
    /// Bytes of memory a job may use.
    pub memory_limit: u64,
}

/// Watches a run, and may end it.
pub trait Observer: Sync {
    /// Called at least every few seconds of work.
    fn progress(&self, progress: Progress);
    /// A step (a stage, or a layer of one) is finished and its checkpoint is on disk.
    fn step_finished(&self);
    /// Whether the run should end at the next boundary.
    fn is_cancelled(&self) -> bool;
    /// Told what the whole run will do, once that is known; for forecasts.
    fn expect(&self, _legs: Vec<Leg>) {}
}

/// Where one run works and who watches it.
pub struct Context<'a> {
    /// The job's own folder for checkpoints between attempts.
    pub work: &'a Path,
    /// An empty folder for the finished checkpoint.
    pub output: &'a Path,
    /// The machine.
    pub settings: &'a Settings,
    /// The watcher.
    pub observer: &'a dyn Observer,
}

impl Context<'_> {
    /// Reports progress.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the run should end here.
    pub fn progress(&self, progress: Progress) -> Result<(), Error> {
        self.observer.progress(progress);
        if self.observer.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}
