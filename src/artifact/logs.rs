//! The logs of worker processes, a file per job.

use std::{fs, io, path::PathBuf};

use crate::job::JobId;

/// Where the logs of worker processes lie.
#[derive(Clone, Debug)]
pub struct Logs {
    folder: PathBuf,
}

impl Logs {
    /// Logs in `folder`, which need not exist yet.
    pub const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The file of a job; it exists once the job was started.
    pub fn path(&self, job: JobId) -> PathBuf {
        self.folder.join(format!("{job}.log"))
    }

    /// Removes a job's log, if there is one.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self, job: JobId) -> io::Result<()> {
        match fs::remove_file(self.path(job)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
