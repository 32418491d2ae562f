//! A job's events as they come, as Server-Sent Events.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{Stream, unfold};
use tokio::{sync::watch, time::Instant};

use super::{ApiState, EventView, prefer};
use crate::{
    job::JobId,
    queue::{EventRecord, StoreError},
};

/// Events read at once.
const PAGE: u32 = 100;
/// Another process may write to the store, of which this one is not told: look at least this often.
const LOOK: Duration = Duration::from_secs(1);
/// Between comments on a silent stream, so that proxies keep it.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The events after `after`, until the job has ended or the server stops.
pub(super) fn stream(state: ApiState, job: JobId, after: u64) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = state.store.changes();
    let reader = Reader { state, job, after, changes, read: VecDeque::new() };
    let events = unfold(reader, async |mut reader| {
        let event = reader.next().await?;
        Some((Ok(shown(event)), reader))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

struct Reader {
    state: ApiState,
    job: JobId,
    after: u64,
    changes: watch::Receiver<u64>,
    read: VecDeque<EventRecord>,
}

impl Reader {
    async fn next(&mut self) -> Option<EventRecord> {
        while self.read.is_empty() {
            match self.look().await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    // The client reconnects, and goes on from the last event it saw.
                    tracing::warn!(%error, job.id = %self.job, "a stream of events breaks off");
                    return None;
                }
            }
        }
        let event = self.read.pop_front()?;
        self.after = event.seq;
        Some(event)
    }

    /// Reads on, or waits a moment. `false` when nothing more will come.
    async fn look(&mut self) -> Result<bool, StoreError> {
        // Before reading, so that an end is not seen without the events that led to it.
        let record = self.state.store.get(self.job).await?;
        let over = record.is_none_or(|record| record.status.is_terminal());
        self.read = self.state.store.events(self.job, self.after, PAGE).await?.into();
        if !self.read.is_empty() {
            return Ok(true);
        }
        if over || self.state.draining.is_draining() {
            return Ok(false);
        }
        prefer::pause(&self.state, &mut self.changes, Instant::now() + LOOK).await;
        Ok(true)
    }
}

fn shown(event: EventRecord) -> Event {
    let (seq, kind) = (event.seq.to_string(), event.kind.as_str());
    // Plain data without line breaks.
    let data = serde_json::to_string(&EventView::from(event)).unwrap_or_default();
    Event::default().id(seq).event(kind).data(data)
}
