//! A job's log, as far as it goes or as it grows.

use std::{io, path::PathBuf, time::Duration};

use futures_util::stream::{Stream, unfold};
use tokio::{fs::File, io::AsyncReadExt, time::Instant};

use super::{ApiState, prefer};
use crate::job::JobId;

/// Bytes sent at once.
const CHUNK: usize = 64 * 1024;
/// Between two looks at the end of a log that grows.
const LOOK: Duration = Duration::from_millis(500);

/// The log of a job; with `follow` until the job has ended or the server stops.
pub(super) fn read(state: ApiState, job: JobId, follow: bool) -> impl Stream<Item = io::Result<Vec<u8>>> {
    let path = state.logs.path(job);
    let reader = Reader { state, job, path, file: None, follow, over: false };
    unfold(reader, async |mut reader| match reader.next().await {
        Ok(Some(chunk)) => Some((Ok(chunk), reader)),
        Ok(None) => None,
        Err(error) => {
            reader.follow = false;
            Some((Err(error), reader))
        }
    })
}

struct Reader {
    state: ApiState,
    job: JobId,
    path: PathBuf,
    /// Open once the job was started.
    file: Option<File>,
    follow: bool,
    /// Whether the job had ended when the end of the file was last seen.
    over: bool,
}

impl Reader {
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let chunk = self.chunk().await?;
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
            if !self.follow || self.over || self.state.draining.is_draining() {
                return Ok(None);
            }
            self.wait().await?;
        }
    }

    async fn chunk(&mut self) -> io::Result<Vec<u8>> {
        if self.file.is_none() {
            match File::open(&self.path).await {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error),
            }
        }
        let Some(file) = &mut self.file else { return Ok(Vec::new()) };
        let mut chunk = vec![0; CHUNK];
        let read = file.read(&mut chunk).await?;
        chunk.truncate(read);
        Ok(chunk)
    }

    /// Whether the job is over is asked before the last look at the file, so that no last line is missed.
    async fn wait(&mut self) -> io::Result<()> {
        let mut changes = self.state.store.changes();
        let record = self.state.store.get(self.job).await.map_err(io::Error::other)?;
        self.over = record.is_none_or(|record| record.status.is_terminal());
        if !self.over {
            prefer::pause(&self.state, &mut changes, Instant::now() + LOOK).await;
        }
        Ok(())
    }
}
