//! `graspd worker`: runs jobs and answers no requests.

use std::sync::Arc;

use tokio::sync::watch;

use super::{AppError, FAREWELL, Signals, kept::Kept, metrics, runtime, service};
use crate::{
    cli::{CANCELLED, FAILED, SUCCEEDED},
    config::{MachineArgs, WorkArgs, Worker},
    job::{JobId, Status},
    queue::{self, JobStore, RetryPolicy, Store, StoreError},
    telemetry, worker,
};

/// The job is not over: it goes on elsewhere, or when it is resumed.
const NOT_OVER: u8 = 4;

/// Runs jobs until a signal comes; with `once`, one.
pub(super) fn work(work: &WorkArgs, machine: &MachineArgs, once: bool) -> Result<u8, AppError> {
    let runtime = runtime()?;
    // Before all else: who is asked to stop while it starts ends as one that ran.
    let signals = runtime.block_on(async { Signals::listen() })?;
    let settings = Worker::read(work, machine)?;
    let _telemetry = telemetry::install_log(&settings.machine.telemetry)?;
    // What is counted in a process that nobody asks is not lost on the slots' code.
    let _metrics = metrics()?;
    let code = runtime.block_on(run(settings, once, signals));
    runtime.shutdown_timeout(FAREWELL);
    code
}

async fn run(mut settings: Worker, once: bool, mut signals: Signals) -> Result<u8, AppError> {
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
    let (stopping, stop) = watch::channel(false);
    tokio::spawn(async move {
        signals.received().await;
        stopping.send_replace(true);
    });
    let jobs = Arc::clone(&store) as Arc<dyn JobStore>;
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
