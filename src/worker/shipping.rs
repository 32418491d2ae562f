//! What an attempt leaves for other machines while it runs: its checkpoints and its log.

use std::{convert::Infallible, path::Path, sync::Arc, time::Duration};

use super::{folder::Folder, supervisor::Ending};
use crate::{
    artifact::{ArtifactError, Depot, Inputs, Sent},
    queue::{Claim, Outcome},
};

/// Where other machines find what this one has, and the other way round.
#[derive(Clone)]
pub struct Elsewhere {
    /// Checkpoints and logs.
    pub depot: Depot,
    /// What jobs read that lies elsewhere.
    pub inputs: Arc<dyn Inputs>,
}

impl std::fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Elsewhere").field("depot", &self.depot).finish_non_exhaustive()
    }
}

/// The leavings of one attempt.
pub(super) struct Shipping<'a> {
    depot: &'a Depot,
    claim: &'a Claim,
    folder: &'a Folder,
    sent: Sent,
    /// Where the attempt's part of the log begins, and how far it was sent.
    log: (u64, u64),
}

impl<'a> Shipping<'a> {
    /// Of an attempt that is about to begin.
    pub(super) fn new(depot: &'a Depot, claim: &'a Claim, folder: &'a Folder) -> Self {
        let length = std::fs::metadata(&folder.log).map_or(0, |log| log.len());
        Self { depot, claim, folder, sent: Sent::default(), log: (length, length) }
    }

    /// Sends what is new, again and again.
    pub(super) async fn go_on(&mut self, pause: Duration) -> Infallible {
        loop {
            tokio::time::sleep(pause).await;
            self.send_log().await;
            self.send_checkpoint().await;
        }
    }

    /// Sends what is finished. What cannot be sent now is sent the next time; without it the job only does more again.
    pub(super) async fn send_checkpoint(&mut self) {
        let Claim { id, attempt, .. } = self.claim;
        match self.depot.send_checkpoint(*id, *attempt, &self.folder.work, &mut self.sent).await {
            Ok(true) => tracing::debug!("a checkpoint was sent"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "a checkpoint could not be sent"),
        }
    }

    pub(super) async fn send_log(&mut self) {
        let (from, sent) = self.log;
        if std::fs::metadata(&self.folder.log).map_or(0, |log| log.len()) <= sent {
            return;
        }
        match self.depot.send_log(self.claim.id, self.claim.attempt, &self.folder.log, from).await {
            Ok(length) => self.log.1 = length,
            Err(error) => tracing::warn!(%error, "the log could not be sent"),
        }
    }
}

impl Shipping<'_> {
    /// Sends the last words of an attempt, and what it has finished where somebody may go on from there.
    pub(super) async fn finish(&mut self, ended: &Ending) {
        self.send_log().await;
        if !matches!(ended, Ending::Finished | Ending::Over(Outcome::Cancelled)) {
            self.send_checkpoint().await;
        }
    }
}

/// Brings to this machine what an attempt needs: the job's checkpoint, and what it reads.
pub(super) async fn fetch(elsewhere: &Elsewhere, claim: &Claim, work: &Path) -> Result<(), ArtifactError> {
    elsewhere.inputs.bring(&claim.spec).await?;
    if elsewhere.depot.restore_checkpoint(claim.id, claim.attempt, work).await? {
        tracing::info!("the job goes on from the checkpoint of another machine");
    }
    Ok(())
}
