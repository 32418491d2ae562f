//! The logs of worker processes: a file per job on this machine, or what every machine has sent of its own.

use std::{
    fs,
    io::{self, SeekFrom},
    path::PathBuf,
};

use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
};

use super::{ArtifactError, Depot, LogPlace, checksums::io_error};
use crate::job::JobId;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// Where the logs of worker processes lie.
#[derive(Clone, Debug)]
pub struct Logs {
    folder: PathBuf,
    depot: Option<Depot>,
}

impl Logs {
    /// Logs in `folder`, which need not exist yet.
    pub const fn new(folder: PathBuf) -> Self {
        Self { folder, depot: None }
    }

    /// Logs that are read from where all machines send them.
    #[must_use]
    pub fn of_all_machines(self, depot: Option<Depot>) -> Self {
        Self { depot, ..self }
    }

    /// The file of a job; it exists once the job was started on this machine.
    pub fn path(&self, job: JobId) -> PathBuf {
        self.folder.join(format!("{job}.log"))
    }

    /// The next piece of a job's log over all its attempts; empty at its end as it stands.
    ///
    /// # Errors
    /// [`ArtifactError`] when the file cannot be read, or the object store does not answer.
    pub async fn read(&self, job: JobId, place: &mut LogPlace) -> Result<Vec<u8>, ArtifactError> {
        if let Some(depot) = &self.depot {
            return depot.read_log(job, place).await;
        }
        let path = self.path(job);
        let mut file = match File::open(&path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file.map_err(io_error(&path))?,
        };
        let mut chunk = vec![0; CHUNK];
        file.seek(SeekFrom::Start(place.bytes)).await.map_err(io_error(&path))?;
        let read = file.read(&mut chunk).await.map_err(io_error(&path))?;
        chunk.truncate(read);
        place.bytes += read as u64;
        Ok(chunk)
    }

    /// Removes a job's log from this machine, if there is one.
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
