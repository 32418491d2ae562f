//! The right to run an attempt, and what the store says when it is renewed.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::{
    job::Progress,
    queue::{Beat, Claim, JobStore, Outcome, StoreError},
};

/// Between two tries to reach a store that does not answer.
const PAUSE: Duration = Duration::from_millis(500);

/// A claim whose lease this process knows to hold, until `lapses`.
pub(super) struct Lease<'a> {
    store: &'a dyn JobStore,
    claim: &'a Claim,
    length: Duration,
    lapses: Instant,
}

impl<'a> Lease<'a> {
    /// The lease that came with a claim made at `since`, an instant before the store was asked.
    pub(super) fn new(store: &'a dyn JobStore, claim: &'a Claim, length: Duration, since: Instant) -> Self {
        Self { store, claim, length, lapses: since + length }
    }

    /// Renews the lease and records progress. A store that does not answer is forgiven until the lease lapses.
    pub(super) async fn beat(&mut self, progress: Option<&Progress>) -> Beat {
        let asked = Instant::now();
        let answer = timeout_at(self.lapses, self.store.beat(self.claim, progress, self.length)).await;
        self.note(asked, answer.ok(), true)
    }

    /// Records a finished step.
    pub(super) async fn step_finished(&mut self) -> Beat {
        let asked = Instant::now();
        let answer = timeout_at(self.lapses, self.store.step_finished(self.claim)).await;
        self.note(asked, answer.ok(), false)
    }

    fn note(&mut self, asked: Instant, answer: Option<Result<Beat, StoreError>>, renews: bool) -> Beat {
        match answer {
            Some(Ok(Beat::Lost)) => Beat::Lost,
            Some(Ok(beat)) => {
                if renews {
                    self.lapses = asked + self.length;
                }
                beat
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "the store refused a beat");
                if Instant::now() < self.lapses { Beat::Owned } else { Beat::Lost }
            }
            None => {
                tracing::warn!("the store did not answer until the lease lapsed");
                Beat::Lost
            }
        }
    }

    /// Ends the attempt, trying again while the lease lasts. `false` when the attempt was not ours to end any more.
    pub(super) async fn settle(&self, outcome: &Outcome) -> bool {
        loop {
            match timeout_at(self.lapses, self.store.settle(self.claim, outcome)).await {
                Ok(Ok(settled)) => return settled,
                Ok(Err(error)) => tracing::warn!(%error, "the store refused to settle"),
                Err(_) => return false,
            }
            if Instant::now() + PAUSE >= self.lapses {
                return false;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
