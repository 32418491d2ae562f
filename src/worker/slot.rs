//! A slot: claim → run → publish → settle, again and again.

use std::{
    future::Future,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tracing::Instrument;

use super::{
    Settings,
    folder::{self, Folder},
    lease::Lease,
    shipping::{self, Shipping},
    supervisor::{Ending, Start, supervise},
};
use crate::{
    artifact::{ArtifactError, ArtifactStore},
    fault,
    job::{Failure, FailureCode, JobId, Progress, Stage, Status},
    queue::{Beat, Claim, JobStore, Offer, Outcome, StoreError},
    telemetry,
};

/// How much longer than an empty queue a store that fails is left alone.
const PATIENCE_WITH_ERRORS: u32 = 10;
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What all slots of a process share.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) store: Arc<dyn JobStore>,
    pub(super) artifacts: Arc<dyn ArtifactStore>,
}

/// One job at a time on one device.
pub(super) struct Slot {
    pub(super) shared: Arc<Shared>,
    pub(super) device: String,
    pub(super) worker: String,
    pub(super) stopping: watch::Receiver<bool>,
}

/// The attempt is somebody else's now.
struct Lost;

/// A slot at work, as the metrics see it; however it ends.
struct Busy;

impl Busy {
    fn begin() -> Self {
        metrics::gauge!("graspd_slots_busy").increment(1);
        Self
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        metrics::gauge!("graspd_slots_busy").decrement(1);
    }
}

impl Slot {
    /// Runs jobs until the server stops.
    pub(super) async fn run(&self) {
        let mut changes = self.shared.store.changes();
        while !*self.stopping.borrow() {
            // Before the claim, so that what comes while it fails is not missed.
            changes.borrow_and_update();
            let since = Instant::now();
            match self.claim().await {
                Ok(Some(claim)) => {
                    fault::point("claimed");
                    self.run_claimed(&claim, since).await;
                }
                Ok(None) => self.pause(self.idle(), Some(&mut changes)).await,
                Err(error) => {
                    tracing::error!(%error, "the store refused a claim");
                    self.pause((self.idle() * PATIENCE_WITH_ERRORS).min(LONGEST_PAUSE), None).await;
                }
            }
        }
    }

    /// Runs one job, if one waits.
    pub(super) async fn once(self) -> Result<Option<JobId>, StoreError> {
        let since = Instant::now();
        let claim = self.claim().await?;
        if let Some(claim) = &claim {
            self.run_claimed(claim, since).await;
        }
        Ok(claim.map(|claim| claim.id))
    }

    async fn claim(&self) -> Result<Option<Claim>, StoreError> {
        let settings = &self.shared.settings;
        let offer = Offer { worker: self.worker.clone(), memory: settings.slot_memory };
        self.shared.store.claim_for(&offer, settings.timing.lease).await
    }

    /// Between two looks into an empty queue. Slots that began together look at different times.
    fn idle(&self) -> Duration {
        let mut hasher = DefaultHasher::new();
        self.worker.hash(&mut hasher);
        self.shared.settings.timing.idle.mul_f64(0.75 + f64::from(hasher.finish() as u8) / 512.0)
    }

    /// Waits for a time, for the server's end, or for a change in the store.
    async fn pause(&self, length: Duration, changes: Option<&mut watch::Receiver<u64>>) {
        let mut stopping = self.stopping.clone();
        let change = async {
            match changes {
                // An error means that the store is gone; the next claim will say so.
                Some(changes) => drop(changes.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // An error means that the server is gone, and with it the reason to wait.
            _ = stopping.wait_for(|stop| *stop) => {}
            () = change => {}
            () = sleep(length) => {}
        }
    }

    async fn run_claimed(&self, claim: &Claim, since: Instant) {
        let span = tracing::info_span!("attempt", job.id = %claim.id, job.attempt = claim.attempt, device = self.device, request.id = claim.origin.request_id, traceparent = claim.origin.traceparent);
        telemetry::follow(&span, claim.origin.traceparent.as_deref());
        let _busy = Busy::begin();
        self.run_attempt(claim, since).instrument(span).await;
    }

    async fn run_attempt(&self, claim: &Claim, since: Instant) {
        tracing::info!(model = %claim.spec.model, "attempt begins");
        let mut lease = Lease::new(&*self.shared.store, claim, self.shared.settings.timing.lease, since);
        let word = match self.attempt(claim, &mut lease).await {
            Ok(outcome) if lease.settle(&outcome).await => log_outcome(&outcome),
            Ok(_) | Err(Lost) => {
                tracing::warn!("the attempt was not ours to end any more");
                "lost"
            }
        };
        metrics::counter!("graspd_attempts_total", "outcome" => word).increment(1);
        metrics::histogram!(super::ATTEMPT_SECONDS, "outcome" => word).record(since.elapsed().as_secs_f64());
        self.shared.tidy(claim.id).await;
    }

    async fn attempt(&self, claim: &Claim, lease: &mut Lease<'_>) -> Result<Outcome, Lost> {
        let settings = &self.shared.settings;
        if let Some(elsewhere) = &settings.elsewhere {
            let work = folder::work_folder(settings, claim.id);
            if let Err(error) = self.keeping(lease, None, shipping::fetch(elsewhere, claim, &work)).await? {
                return Ok(Outcome::Failed(describe(&error)));
            }
        }
        let folder = match Folder::prepare(settings, claim) {
            Ok(folder) => folder,
            Err(failure) => return Ok(Outcome::Failed(failure)),
        };
        let output = match self.shared.artifacts.stage(claim.id, claim.attempt).await {
            Ok(output) => output,
            Err(error) => return Ok(Outcome::Failed(describe(&error))),
        };
        let start = Start { settings, device: &self.device, folder: &folder, output: &output, claim };
        match self.supervise_and_ship(start, lease).await? {
            Ok(Ending::Finished) => self.publish(claim, lease).await,
            Ok(Ending::Over(outcome)) => Ok(outcome),
            Ok(Ending::Lost) => Err(Lost),
            Err(failure) => Ok(Outcome::Failed(failure)),
        }
    }

    /// Runs the child, and lets other machines know what it has finished.
    async fn supervise_and_ship(
        &self,
        start: Start<'_>,
        lease: &mut Lease<'_>,
    ) -> Result<Result<Ending, Failure>, Lost> {
        let (settings, claim, folder) = (start.settings, start.claim, start.folder);
        let Some(elsewhere) = &settings.elsewhere else {
            return Ok(supervise(start, lease, self.stopping.clone()).await);
        };
        let mut shipping = Shipping::new(&elsewhere.depot, claim, folder);
        // Often enough that a machine that dies takes little with it.
        let pause = settings.timing.lease / 3;
        let ended = tokio::select! {
            ended = supervise(start, lease, self.stopping.clone()) => ended,
            never = shipping.go_on(pause) => match never {},
        };
        if let Ok(ended) = &ended
            && *ended != Ending::Lost
        {
            self.keeping(lease, None, shipping.finish(ended)).await?;
        }
        Ok(ended)
    }

    /// Publishes the staged folder under a lease that is known to be held when it begins and kept while it lasts.
    async fn publish(&self, claim: &Claim, lease: &mut Lease<'_>) -> Result<Outcome, Lost> {
        let progress = Progress::new(Stage::Publish, 0, 1);
        match lease.beat(Some(&progress)).await {
            // There is no step left to pause after.
            Beat::Owned | Beat::PauseRequested => {}
            Beat::CancelRequested => return Ok(Outcome::Cancelled),
            Beat::Lost => return Err(Lost),
        }
        // A cancel that comes now is too late: the folder may already be visible.
        let publishing = self.shared.artifacts.publish(claim.id, claim.attempt);
        Ok(match self.keeping(lease, Some(&progress), publishing).await? {
            Ok(bytes) => {
                // The events tell of a whole stage. Whether the attempt may end is asked when it settles.
                lease.beat(Some(&Progress::new(Stage::Publish, 1, 1))).await;
                metrics::counter!(super::PUBLISHED_BYTES).increment(bytes);
                Outcome::Succeeded
            }
            Err(error) => Outcome::Failed(describe(&error)),
        })
    }

    /// Does what takes its time, under a lease that is renewed meanwhile.
    async fn keeping<T>(
        &self,
        lease: &mut Lease<'_>,
        progress: Option<&Progress>,
        work: impl Future<Output = T>,
    ) -> Result<T, Lost> {
        let mut ticks = interval(self.shared.settings.timing.beat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                _ = ticks.tick() => if lease.beat(progress).await == Beat::Lost {
                    return Err(Lost);
                },
            }
        }
    }
}

impl Shared {
    /// Removes what a job no longer needs; one that may run again, a failed one included, keeps its checkpoints.
    pub(super) async fn tidy(self: &Arc<Self>, id: JobId) {
        match self.store.get(id).await {
            Ok(Some(record)) if matches!(record.status, Status::Succeeded | Status::Cancelled) => {}
            Ok(None) => {}
            Ok(Some(_)) => return,
            Err(error) => {
                tracing::warn!(%error, "the store did not say whether the job is over");
                return;
            }
        }
        // The work folder goes last: by it the sweep finds a job whose removal was interrupted.
        if let Err(error) = self.artifacts.discard(id).await {
            tracing::warn!(%error, "a staging folder could not be removed");
            return;
        }
        let shared = Arc::clone(self);
        // Checkpoints of a large model take seconds to remove.
        let removed = tokio::task::spawn_blocking(move || folder::remove_work(&shared.settings, id)).await;
        if let Err(error) = removed {
            tracing::warn!(%error, "removing a work folder broke off");
        }
    }
}

fn describe(error: &ArtifactError) -> Failure {
    match error {
        ArtifactError::Io { path, source } => folder::refused(path, source),
        // The child wrote a folder that does not fit its own list, and would write the same again.
        ArtifactError::Corrupt { .. } => Failure::give_up(FailureCode::Internal, error.to_string()),
        ArtifactError::Objects { .. } | ArtifactError::Rows(_) => {
            tracing::warn!(%error, "the object store failed an attempt");
            Failure::retry(FailureCode::Internal, "the object store failed: the worker's log has the details")
        }
    }
}

/// Logs how an attempt ended, once, and names it for the metrics.
fn log_outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => {
            tracing::info!("attempt succeeded");
            "succeeded"
        }
        Outcome::Cancelled => {
            tracing::info!("attempt cancelled");
            "cancelled"
        }
        Outcome::Paused => {
            tracing::info!("attempt paused: the job goes on when it is resumed");
            "paused"
        }
        Outcome::Released => {
            tracing::info!("attempt released: the job goes on when a worker is there again");
            "released"
        }
        Outcome::Failed(failure) => {
            tracing::warn!(%failure, decision = ?failure.decision, "attempt failed");
            "failed"
        }
        Outcome::Crashed(failure) => {
            tracing::error!(%failure, "attempt crashed");
            "crashed"
        }
    }
}
