//! The slots of one process, and the broom behind them.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Settings, folder, retention,
    slot::{Shared, Slot},
};
use crate::{
    artifact::ArtifactStore,
    job::JobId,
    queue::{JobStore, Offer, StoreError},
};

/// Between two looks for work folders of jobs that ended elsewhere: cancelled while they waited for a retry, say.
const SWEEP: Duration = Duration::from_mins(10);

/// Between two announcements, of which two may be lost before a worker counts as gone.
const ANNOUNCE: Duration = Duration::from_secs(20);

/// Before a slot that broke off begins again.
const BREATHER: Duration = Duration::from_secs(1);

/// Runs `settings.slots_per_device` slots on each device until `stopping` turns true and every slot has settled.
pub async fn run(
    settings: Settings,
    store: Arc<dyn JobStore>,
    artifacts: Arc<dyn ArtifactStore>,
    stopping: watch::Receiver<bool>,
) {
    let shared = Arc::new(Shared { settings, store, artifacts });
    let mut tasks = JoinSet::new();
    // At once, so that no job fails for want of a slot that is just coming up.
    announce(&shared).await;
    for device in &shared.settings.devices {
        for number in 0..shared.settings.slots_per_device {
            let worker = format!("{}/{device}/{number}", shared.settings.worker);
            let slot = Slot { shared: Arc::clone(&shared), device: device.clone(), worker, stopping: stopping.clone() };
            tasks.spawn(keep(slot));
        }
    }
    tasks.spawn(sweep(Arc::clone(&shared), stopping));
    let slots = async {
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a part of the pool broke off");
            }
        }
    };
    announced(&shared, slots).await;
}

/// Runs a slot until the server stops, and again where a defect ended it: its job goes on when the lease has lapsed.
async fn keep(slot: Slot) {
    // What a panic leaves behind is dropped with the attempt; the slot itself holds nothing that changes.
    while AssertUnwindSafe(slot.run()).catch_unwind().await.is_err() {
        tracing::error!(worker = slot.worker, "a slot broke off and begins again");
        sleep(BREATHER).await;
    }
}

/// Runs one job that waits, on the first device, if there is one; which.
///
/// # Errors
/// [`StoreError`] when the store cannot be asked.
pub async fn run_once(
    settings: Settings,
    store: Arc<dyn JobStore>,
    artifacts: Arc<dyn ArtifactStore>,
    stopping: watch::Receiver<bool>,
) -> Result<Option<JobId>, StoreError> {
    let device = settings.devices.first().cloned().unwrap_or_default();
    let worker = format!("{}/{device}/once", settings.worker);
    let shared = Arc::new(Shared { settings, store, artifacts });
    announce(&shared).await;
    let slot = Slot { shared: Arc::clone(&shared), device, worker, stopping };
    announced(&shared, slot.once()).await
}

/// Lets the store know that this worker is up, for as long as `work` takes.
async fn announced<T>(shared: &Shared, work: impl Future<Output = T>) -> T {
    let announcing = async {
        loop {
            sleep(ANNOUNCE).await;
            announce(shared).await;
        }
    };
    let done = tokio::select! {
        done = work => done,
        never = announcing => never,
    };
    if let Err(error) = shared.store.withdraw(&shared.settings.worker).await {
        tracing::debug!(%error, "the worker counts as up for another minute");
    }
    done
}

async fn announce(shared: &Shared) {
    // A pool without slots only sweeps.
    if shared.settings.devices.is_empty() {
        return;
    }
    let offer = Offer { worker: shared.settings.worker.clone(), memory: shared.settings.slot_memory };
    if let Err(error) = shared.store.announce(&offer).await {
        tracing::warn!(%error, "the store was not told that this worker is up");
    }
}

async fn forget_copies(shared: &Shared) -> Result<(), String> {
    let needed = shared.store.models_in_use().await.map_err(|error| error.to_string())?;
    shared.artifacts.remove_copies_but(&needed).await.map_err(|error| error.to_string())
}

async fn sweep(shared: Arc<Shared>, mut stopping: watch::Receiver<bool>) {
    loop {
        for id in folder::jobs_with_work(&shared.settings) {
            shared.tidy(id).await;
        }
        if shared.settings.keeps_house {
            retention::apply(&shared).await;
            match shared.artifacts.sweep().await {
                Ok(0) => {}
                Ok(objects) => tracing::info!(objects, "what no job needs any more was removed"),
                Err(error) => tracing::warn!(%error, "what no job needs any more could not be removed"),
            }
        }
        if let Err(error) = forget_copies(&shared).await {
            tracing::warn!(error, "copies of published folders could not be removed");
        }
        if timeout(SWEEP, stopping.wait_for(|stop| *stop)).await.is_ok() {
            return;
        }
    }
}
