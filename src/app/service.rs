//! The running service: what answers requests and what runs jobs, started and stopped together.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::timeout};

use crate::{artifact::ArtifactStore, model::open_device, queue::JobStore, worker};

/// How long a stopping service waits for requests and children; service managers kill after 30 s.
const DRAIN: Duration = Duration::from_secs(28);

/// The service did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The address cannot be listened on.
    #[error("listening on {address} (GRASPD_LISTEN, --listen): {source}")]
    Listen {
        /// `host:port`.
        address: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A device is not there.
    #[error("{0} (GRASPD_DEVICES, --devices)")]
    Device(crate::checkpoint::Error),
}

/// A service at work. Dropped without [`Service::stop`], it goes on until its runtime ends.
pub struct Service {
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    talking: JoinHandle<()>,
    running: JoinHandle<()>,
}

impl Service {
    /// Starts the slots, and `talk` on a socket bound to `listen`; `talk` ends its last request when the flag turns
    /// true, and answers "not ready" from then on.
    ///
    /// # Errors
    /// [`ServiceError`] when the address or a device cannot be used.
    pub async fn start<F>(
        listen: &str,
        slots: worker::Settings,
        store: Arc<dyn JobStore>,
        artifacts: Arc<dyn ArtifactStore>,
        talk: impl FnOnce(TcpListener, watch::Receiver<bool>) -> F,
    ) -> Result<Self, ServiceError>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        for device in &slots.devices {
            open_device(device).map_err(ServiceError::Device)?;
        }
        let refused = |source| ServiceError::Listen { address: listen.to_owned(), source };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let (stopping, stop) = watch::channel(false);
        tracing::info!(%address, devices = ?slots.devices, slots = slots.slots_per_device, "graspd is listening");
        Ok(Self {
            address,
            talking: tokio::spawn(talk(listener, stop.clone())),
            running: tokio::spawn(worker::run(slots, store, artifacts, stop)),
            stopping,
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Finishes requests, stops children at a checkpoint, gives their jobs back, and returns.
    pub async fn stop(self) {
        self.stopping.send_replace(true);
        let both = async { tokio::join!(self.talking, self.running) };
        match timeout(DRAIN, both).await {
            Ok((Ok(()), Ok(()))) => tracing::info!("stopped"),
            Ok((talking, running)) => tracing::error!(?talking, ?running, "a part of the service broke off"),
            Err(_) => tracing::warn!(seconds = DRAIN.as_secs(), "stopped without waiting any longer"),
        }
    }
}
