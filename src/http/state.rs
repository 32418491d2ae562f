use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use metrics_exporter_prometheus::PrometheusHandle;

use crate::{artifact::ArtifactStore, clock::Ids, queue::JobStore};

/// What the endpoints need.
#[derive(Clone)]
pub struct ApiState {
    /// Jobs.
    pub store: Arc<dyn JobStore>,
    /// Published folders.
    pub artifacts: Arc<dyn ArtifactStore>,
    /// New ids for jobs and requests.
    pub ids: Arc<dyn Ids>,
    /// Renders what the process's recorder has collected.
    pub metrics: PrometheusHandle,
    /// Whether the server is about to stop.
    pub draining: Draining,
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState").field("draining", &self.draining).finish_non_exhaustive()
    }
}

/// A flag shared with whoever stops the server: from then on it is not ready and takes no new jobs.
#[derive(Clone, Debug, Default)]
pub struct Draining(Arc<AtomicBool>);

impl Draining {
    /// Raises the flag.
    pub fn start(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it is raised.
    pub fn is_draining(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
