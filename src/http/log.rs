//! A job's log, as far as it goes or as it grows.

use std::{io, time::Duration};

use futures_util::stream::{Stream, unfold};
use tokio::time::Instant;

use super::{ApiState, prefer};
use crate::{artifact::LogPlace, job::JobId};

/// Between two looks at the end of a log that grows.
const LOOK: Duration = Duration::from_millis(500);

/// The log of a job; with `follow` until the job has ended or the server stops.
pub(super) fn read(state: ApiState, job: JobId, follow: bool) -> impl Stream<Item = io::Result<Vec<u8>>> {
    let reader = Reader { state, job, place: LogPlace::default(), follow, over: false };
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
    place: LogPlace,
    follow: bool,
    /// Whether the job had ended when the end of the log was last seen.
    over: bool,
}

impl Reader {
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let chunk = self.state.logs.read(self.job, &mut self.place).await.map_err(io::Error::other)?;
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
            if !self.follow || self.over || self.state.draining.is_draining() {
                return Ok(None);
            }
            self.wait().await?;
        }
    }

    /// Whether the job is over is asked before the last look at the log, so that no last line is missed.
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
