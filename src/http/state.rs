use std::{fmt, sync::Arc};

use axum::extract::FromRef;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use super::{RateLimit, uploads::Uploads};
use crate::{
    artifact::{ArtifactStore, Inputs, Logs},
    clock::Ids,
    job::{Planner, Publisher},
    queue::{DatasetStore, JobStore, KeyStore, QueueLimits},
};

/// What the endpoints need.
#[derive(Clone)]
pub struct ApiState {
    /// Jobs.
    pub store: Arc<dyn JobStore>,
    /// API keys.
    pub keys: Arc<dyn KeyStore>,
    /// What is known of uploaded texts.
    pub datasets: Arc<dyn DatasetStore>,
    /// Published folders.
    pub artifacts: Arc<dyn ArtifactStore>,
    /// The logs of worker processes.
    pub logs: Logs,
    /// The uploaded texts themselves.
    pub uploads: Uploads,
    /// What a plan reads that may lie elsewhere, where there are several machines.
    pub inputs: Option<Arc<dyn Inputs>>,
    /// What the method can do, and what a job would take.
    pub planner: Arc<dyn Planner>,
    /// Brings published folders to the hub.
    pub publisher: Arc<dyn Publisher>,
    /// New ids for jobs and requests.
    pub ids: Arc<dyn Ids>,
    /// Renders what the process's recorder has collected.
    pub metrics: PrometheusHandle,
    /// Whether the server is about to stop.
    pub draining: Draining,
    /// Limits.
    pub settings: Settings,
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState")
            .field("draining", &self.draining)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What the endpoints for operators need.
#[derive(Clone)]
pub struct ProbeState {
    /// Jobs.
    pub store: Arc<dyn JobStore>,
    /// Renders what the process's recorder has collected.
    pub metrics: PrometheusHandle,
    /// Whether the process is about to stop.
    pub draining: Draining,
}

impl fmt::Debug for ProbeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeState").field("draining", &self.draining).finish_non_exhaustive()
    }
}

impl FromRef<ApiState> for ProbeState {
    fn from_ref(state: &ApiState) -> Self {
        Self { store: Arc::clone(&state.store), metrics: state.metrics.clone(), draining: state.draining.clone() }
    }
}

/// Limits of the API.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many jobs may wait.
    pub queue: QueueLimits,
    /// How often anybody may ask.
    pub rate: RateLimit,
    /// Whether jobs may name a webhook.
    pub webhooks: bool,
    /// Bytes of one uploaded text.
    pub largest_dataset: u64,
    /// Bytes of all uploaded texts of a tenant.
    pub datasets_of_tenant: u64,
}

/// A flag shared with whoever stops the server: from then on it is not ready, takes no new jobs, and ends replies that
/// would go on.
#[derive(Clone, Debug)]
pub struct Draining(watch::Sender<bool>);

impl Default for Draining {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Draining {
    /// Raises the flag.
    pub fn start(&self) {
        self.0.send_replace(true);
    }

    /// Whether it is raised.
    pub fn is_draining(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is raised.
    pub async fn started(&self) {
        // The sender lives as long as this receiver, so that there is no error.
        let _ = self.0.subscribe().wait_for(|raised| *raised).await;
    }
}
