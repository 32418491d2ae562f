//! `graspd worker`: runs jobs and answers no requests but its operators'.

use std::{future::pending, sync::Arc};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use super::{AppError, FAREWELL, ServiceError, Signals, kept::Kept, metrics, runtime, service};
use crate::{
    cli::{CANCELLED, FAILED, SUCCEEDED},
    config::{self, Worker, WorkerArgs},
    http::{self, Draining, ProbeState},
    job::{JobId, Status},
    queue::{self, JobStore, RetryPolicy, Store, StoreError},
    telemetry, worker,
};

/// The job is not over: it goes on elsewhere, or when it is resumed.
const NOT_OVER: u8 = 4;

/// Runs jobs until a signal comes; with `--once`, one.
pub(super) fn work(args: &WorkerArgs) -> Result<u8, AppError> {
    let runtime = runtime()?;
    // Before all else: who is asked to stop while it starts ends as one that ran.
    let signals = runtime.block_on(async { Signals::listen() })?;
    let settings = Worker::read(&args.work, &args.machine)?;
    let listen = config::metrics_address(args.metrics_listen.as_ref())?;
    let _telemetry = telemetry::install_log(&settings.machine.telemetry)?;
    let probed = Probed { listen, metrics: metrics()?, draining: Draining::default() };
    let code = runtime.block_on(run(settings, args.once, probed, signals));
    runtime.shutdown_timeout(FAREWELL);
    code
}

/// What this process tells its operators.
struct Probed {
    /// Where, if anywhere.
    listen: Option<String>,
    metrics: PrometheusHandle,
    draining: Draining,
}

impl Probed {
    /// Answers `/livez`, `/readyz` and `/metrics` until the process ends: while its jobs stop, too.
    async fn answer(&self, store: Arc<dyn JobStore>) -> Result<(), ServiceError> {
        tokio::spawn(service::keep_up(self.metrics.clone()));
        let Some(listen) = &self.listen else { return Ok(()) };
        let (listener, address) = service::listen(listen, "GRASPD_METRICS_LISTEN, --metrics-listen").await?;
        tracing::info!(%address, "the worker's metrics can be asked for");
        let state = ProbeState { store, metrics: self.metrics.clone(), draining: self.draining.clone() };
        tokio::spawn(http::server::serve(listener, http::probes(state), pending()));
        Ok(())
    }
}

async fn run(mut settings: Worker, once: bool, probed: Probed, mut signals: Signals) -> Result<u8, AppError> {
    service::open_devices(&settings.worker)?;
    service::make_folders(&settings.machine)?;
    let data = &settings.machine.data_dir;
    let opening = queue::open(&settings.database_url, settings.database_connections, RetryPolicy::default());
    let store = tokio::select! {
        store = opening => store?,
        () = signals.received() => return Ok(SUCCEEDED),
    };
    let _presence = service::be_present(data, &*store).await?;
    let Kept { artifacts, elsewhere } = Kept::open(&settings.machine, settings.objects.as_ref(), &store)?;
    settings.worker.elsewhere = elsewhere;
    let jobs = Arc::clone(&store) as Arc<dyn JobStore>;
    probed.answer(Arc::clone(&jobs)).await?;
    let (stopping, stop) = watch::channel(false);
    tokio::spawn(async move {
        signals.received().await;
        probed.draining.start();
        stopping.send_replace(true);
    });
    tracing::info!(worker = settings.worker.worker, data = %data.display(), once, "the worker begins");
    let code = if once {
        let ran = worker::run_once(settings.worker, jobs, artifacts, stop).await?;
        exit_code(&*store, ran).await?
    } else {
        worker::run(settings.worker, jobs, artifacts, stop).await;
        SUCCEEDED
    };
    store.close().await;
    tracing::info!(code, "the worker ends");
    Ok(code)
}

/// How the one job ended, as exit codes say it elsewhere; 0 too when none waited.
async fn exit_code(store: &dyn Store, ran: Option<JobId>) -> Result<u8, StoreError> {
    let Some(id) = ran else { return Ok(SUCCEEDED) };
    Ok(match store.get(id).await?.map(|record| record.status) {
        Some(Status::Succeeded) => SUCCEEDED,
        Some(Status::Failed) => FAILED,
        Some(Status::Cancelled) | None => CANCELLED,
        Some(Status::Queued | Status::Running | Status::Paused) => NOT_OVER,
    })
}
