//! The running service: what answers requests and what runs jobs, started and stopped together.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpListener, runtime::Handle, sync::watch, task::JoinHandle, time::timeout};

use super::{HubPublisher, kept::Kept, planner::TheMethod};
use crate::{
    artifact::{ArtifactError, ArtifactStore, Logs},
    checkpoint,
    clock::{RandomIds, SystemClock},
    config::{Machine, Server},
    http::{self, ApiState, Draining, Uploads, webhook},
    job::{JobId, UPLOADS},
    model::open_device,
    queue::{self, DatasetStore, JobStore, KeyStore, RetryPolicy, Store, StoreError, WebhookStore},
    worker::{self, Presence},
};

/// How long a stopping service waits for requests and children; service managers kill after 30 s.
const DRAIN: Duration = Duration::from_secs(28);
/// Between two rounds of folding measurements together, so that they do not pile up when nobody asks for them.
const UPKEEP: Duration = Duration::from_secs(5);
/// A file that every published folder holds.
const REPORT: &str = "report.json";

/// The service did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The address cannot be listened on.
    #[error("listening on {address} ({setting}): {source}")]
    Listen {
        /// Which setting names it.
        setting: &'static str,
        /// `host:port`.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A device is not there.
    #[error("{0} (GRASPD_DEVICES, --devices)")]
    Device(checkpoint::Error),
    /// A folder of the service cannot be made.
    #[error("{path} ({setting}): {source}")]
    Folder {
        /// Which setting names it.
        setting: &'static str,
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The queue cannot be opened.
    #[error("the queue (GRASPD_DATABASE_URL, --database-url): {0}")]
    Queue(#[from] StoreError),
    /// Anybody could do anything.
    #[error(
        "{address} can be reached from other machines and there is no key: make one with `graspd keys create`, or set GRASPD_ALLOW_ANONYMOUS=1 (--allow-anonymous) if something in front of it keeps strangers out"
    )]
    Open {
        /// Where it would listen.
        address: SocketAddr,
    },
    /// The published folders cannot be kept.
    #[error("the published folders (GRASPD_DATA_DIR, GRASPD_OBJECTS_URL): {0}")]
    Artifacts(#[from] ArtifactError),
}

/// A service at work.
pub struct Service {
    address: SocketAddr,
    artifacts: Arc<dyn ArtifactStore>,
    store: Arc<dyn Store>,
    draining: Draining,
    stopping: watch::Sender<bool>,
    talking: JoinHandle<()>,
    running: JoinHandle<()>,
    telling: Option<JoinHandle<()>>,
    upkeep: JoinHandle<()>,
    _presence: Presence,
}

impl Service {
    /// Opens what is kept, listens, and starts the slots.
    ///
    /// # Errors
    /// [`ServiceError`] names the setting that cannot be used.
    pub async fn start(server: Server, metrics: PrometheusHandle) -> Result<Self, ServiceError> {
        if server.works {
            open_devices(&server.worker)?;
        }
        make_folders(&server.machine)?;
        let data = &server.machine.data_dir;
        let store = queue::open(&server.database_url, server.database_connections, RetryPolicy::default()).await?;
        let presence = be_present(data, &*store).await?;
        let Kept { artifacts, elsewhere } = Kept::open(&server.machine, server.objects.as_ref(), &store)?;
        let depot = elsewhere.as_ref().map(|elsewhere| elsewhere.depot.clone());
        let (listener, address) = listen(&server.listen, "GRASPD_LISTEN, --listen").await?;
        if !address.ip().is_loopback() && !server.front.allow_anonymous && !store.has_keys().await? {
            return Err(ServiceError::Open { address });
        }
        let draining = Draining::default();
        let hub = server.machine.hub.clone();
        let publisher = HubPublisher::new(Arc::clone(&artifacts), hub, draining.clone(), Handle::current());
        let state = ApiState {
            store: Arc::clone(&store) as Arc<dyn JobStore>,
            keys: Arc::clone(&store) as Arc<dyn KeyStore>,
            datasets: Arc::clone(&store) as Arc<dyn DatasetStore>,
            artifacts: Arc::clone(&artifacts),
            logs: Logs::new(server.worker.log_dir.clone()).of_all_machines(depot.clone()),
            uploads: Uploads::new(server.machine.datasets_dir.join(UPLOADS)).for_all_machines(depot),
            inputs: elsewhere.as_ref().map(|elsewhere| Arc::clone(&elsewhere.inputs)),
            planner: Arc::new(planner(&server)),
            publisher: Arc::new(publisher),
            ids: Arc::new(RandomIds),
            metrics: metrics.clone(),
            draining: draining.clone(),
            settings: server.front.api,
        };
        let (stopping, stop) = watch::channel(false);
        let mut worker = server.worker;
        worker.elsewhere = elsewhere;
        if !server.works {
            // What is left of a pool without slots is the broom.
            worker.devices.clear();
        }
        let slots = worker.devices.len() * worker.slots_per_device;
        tracing::info!(%address, slots, data = %data.display(), "graspd is listening");
        let telling = server.front.webhooks.clone().map(|settings| {
            let store = Arc::clone(&store) as Arc<dyn WebhookStore>;
            tokio::spawn(webhook::run(settings, store, Arc::new(SystemClock), stop.clone()))
        });
        let talking = http::server::serve(listener, http::router(state), told(stop.clone()));
        let running = worker::run(worker, Arc::clone(&store) as Arc<dyn JobStore>, Arc::clone(&artifacts), stop);
        Ok(Self {
            address,
            artifacts,
            store,
            draining,
            stopping,
            talking: tokio::spawn(talking),
            running: tokio::spawn(running),
            telling,
            upkeep: tokio::spawn(keep_up(metrics)),
            _presence: presence,
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where a job's published folder lies on this machine.
    pub async fn folder(&self, id: JobId) -> Option<PathBuf> {
        let (path, _) = self.artifacts.locate(id, REPORT).await.ok().flatten()?;
        path.parent().map(PathBuf::from)
    }

    /// Finishes requests, stops children at a checkpoint, gives their jobs back, and returns.
    pub async fn stop(self) {
        self.draining.start();
        self.stopping.send_replace(true);
        let both = async { tokio::join!(self.talking, self.running) };
        match timeout(DRAIN, both).await {
            Ok((Ok(()), Ok(()))) => tracing::info!("stopped"),
            Ok((talking, running)) => tracing::error!(?talking, ?running, "a part of the service broke off"),
            Err(_) => tracing::warn!(seconds = DRAIN.as_secs(), "stopped without waiting any longer"),
        }
        self.upkeep.abort();
        if let Some(telling) = self.telling {
            // What it was sending is sent again after the next start, under the same id.
            telling.abort();
        }
        self.store.close().await;
    }
}

/// Sees to it that the devices are there.
pub(super) fn open_devices(worker: &worker::Settings) -> Result<(), ServiceError> {
    worker.devices.iter().try_for_each(|device| open_device(device).map(drop).map_err(ServiceError::Device))
}

fn planner(server: &Server) -> TheMethod {
    let devices = server.worker.devices.clone();
    let device = devices.first().cloned().unwrap_or_default();
    TheMethod { settings: server.machine.pipeline(device), devices }
}

/// Makes the folders that users put models and texts in, so that they find them.
pub(super) fn make_folders(machine: &Machine) -> Result<(), ServiceError> {
    for (path, setting) in [
        (&machine.data_dir, "GRASPD_DATA_DIR, --data-dir"),
        (&machine.models_dir, "GRASPD_MODELS_DIR, --models-dir"),
        (&machine.datasets_dir, "GRASPD_DATASETS_DIR, --datasets-dir"),
    ] {
        if !path.is_dir() {
            let refused = |source| ServiceError::Folder { setting, path: path.clone(), source };
            std::fs::create_dir_all(path).map_err(refused)?;
        }
    }
    Ok(())
}

/// Joins those who work on the data folder. Where nobody does, what the database says of running jobs is left of a crash.
pub(super) async fn be_present(data: &Path, store: &dyn Store) -> Result<Presence, ServiceError> {
    let refused =
        |source| ServiceError::Folder { setting: "GRASPD_DATA_DIR, --data-dir", path: data.to_owned(), source };
    let (presence, alone) = Presence::enter(data).map_err(refused)?;
    if alone {
        store.nobody_is_left().await?;
    }
    Ok(presence)
}

/// Takes an address; `setting` says who names it.
pub(super) async fn listen(address: &str, setting: &'static str) -> Result<(TcpListener, SocketAddr), ServiceError> {
    let refused = |source| ServiceError::Listen { setting, address: address.to_owned(), source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let taken = listener.local_addr().map_err(refused)?;
    Ok((listener, taken))
}

async fn told(mut stop: watch::Receiver<bool>) {
    // An error means that the service is gone, which is as good as told.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Folds measurements together, for as long as the process lives.
pub(super) async fn keep_up(metrics: PrometheusHandle) {
    let mut rounds = tokio::time::interval(UPKEEP);
    loop {
        rounds.tick().await;
        metrics.run_upkeep();
    }
}
