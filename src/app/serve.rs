//! The service out of its parts, and what the command line does with it.

use std::{fs, path::Path, sync::Arc, time::Instant};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpListener, runtime::Runtime, sync::watch};

use super::{AppError, Service, signals::Signals};
use crate::{
    artifact::{ArtifactStore, DiskStore},
    cli::{self, Bar, Ending, LOOK, SUCCEEDED, Sight, Unseen, demo},
    clock::RandomIds,
    config::{LogArgs, MachineArgs, ServeArgs, Server},
    http::{
        self, ApiState, Draining, JobView,
        client::{Client, ClientError},
    },
    job::{JobId, Progress},
    queue::{JobStore, RetryPolicy, SqliteStore},
    telemetry,
};

/// Runs the service until a signal asks it to stop.
pub(super) fn serve(args: &ServeArgs) -> Result<u8, AppError> {
    let server = Server::read(args)?;
    telemetry::install_log(&server.machine.telemetry)?;
    let metrics = telemetry::install_metrics()?;
    Runtime::new()?.block_on(async {
        let mut signals = Signals::listen()?;
        let service = start(server, metrics).await?;
        signals.received().await;
        service.stop().await;
        Ok(SUCCEEDED)
    })
}

async fn start(server: Server, metrics: PrometheusHandle) -> Result<Service, AppError> {
    let data_dir = &server.machine.data_dir;
    for folder in [data_dir, &server.machine.models_dir, &server.machine.datasets_dir] {
        fs::create_dir_all(folder).map_err(|source| AppError::Folder { path: folder.clone(), source })?;
    }
    let artifacts: Arc<dyn ArtifactStore> = Arc::new(DiskStore::open(data_dir)?);
    let store: Arc<dyn JobStore> = Arc::new(SqliteStore::open(&server.database_url, RetryPolicy::default()).await?);
    let draining = Draining::default();
    let state = ApiState {
        store: Arc::clone(&store),
        artifacts: Arc::clone(&artifacts),
        ids: Arc::new(RandomIds),
        metrics,
        draining: draining.clone(),
    };
    let talk = |listener: TcpListener, stop: watch::Receiver<bool>| {
        http::server::serve(listener, http::router(state), stopped(stop, draining))
    };
    Ok(Service::start(&server.listen, server.worker, Arc::clone(&store), Arc::clone(&artifacts), talk).await?)
}

async fn stopped(mut stop: watch::Receiver<bool>, draining: Draining) {
    // An error means that the sender is gone, and with it the service.
    let _ = stop.wait_for(|stop| *stop).await;
    draining.start();
}

/// Draws a job of a server until it is over.
pub(super) fn wait(server: &str, id: JobId) -> Result<u8, AppError> {
    let ending =
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(follow(&Client::new(server)?, id));
    if let Ending::Failed(why) | Ending::NoAnswer(why) = &ending {
        cli::complain(why);
    }
    Ok(ending.exit_code())
}

async fn follow(client: &Client, id: JobId) -> Ending {
    cli::watch(&Bar::default(), LOOK, async || match client.get(id).await {
        Ok(view) => Ok(sight(view)),
        Err(error) if is_passing(&error) => Err(Unseen::Passing(error)),
        Err(error) => Err(Unseen::Final(error)),
    })
    .await
}

/// Whether the same question may be answered later: no server yet, or one that is starting or stopping.
fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Problem(problem) => problem.status == 503,
        ClientError::InvalidUrl { .. }
        | ClientError::Damaged { .. }
        | ClientError::Unexpected { .. }
        | ClientError::Io { .. } => false,
    }
}

fn sight(view: JobView) -> Sight {
    let progress = view.stage.zip(view.progress).map(|(stage, view)| Progress {
        layer: view.layer,
        part: view.part,
        ..Progress::new(stage, view.done, view.total)
    });
    Sight {
        status: view.status,
        progress,
        error: view.error.map(|error| (error.code.as_str().to_owned(), error.message)),
    }
}

/// Compresses the sample model through a real service in a folder of its own, which stays.
pub(super) fn demo(log: &LogArgs) -> Result<u8, AppError> {
    telemetry::install_log(&crate::config::log_settings_of_a_tool(log)?)?;
    let folder = tempfile::Builder::new().prefix("graspd-demo-").tempdir()?.keep();
    let machine = MachineArgs {
        data_dir: Some(folder.clone()),
        hf_hub_offline: Some("1".to_owned()),
        log: log.clone(),
        ..MachineArgs::default()
    };
    let args = ServeArgs { listen: Some("127.0.0.1:0".to_owned()), machine, ..ServeArgs::default() };
    let server = Server::read(&args)?;
    demo::write_samples(&server.machine.models_dir, &server.machine.datasets_dir)?;
    Runtime::new()?.block_on(async {
        let service = start(server, telemetry::install_metrics()?).await?;
        let result = show(&service, &folder).await;
        service.stop().await;
        result
    })
}

async fn show(service: &Service, folder: &Path) -> Result<u8, AppError> {
    let begin = Instant::now();
    let client = Client::new(&format!("http://{}", service.address()))?;
    let id = client.submit(&demo::job()).await?.id;
    let ending = follow(&client, id).await;
    if ending != Ending::Succeeded {
        if let Ending::Failed(why) | Ending::NoAnswer(why) = &ending {
            cli::complain(why);
        }
        return Ok(ending.exit_code());
    }
    let report = client.report(id).await?;
    let checkpoint = folder.join("artifacts").join(id.to_string());
    let seconds = begin.elapsed().as_secs_f64();
    cli::print(&format!(
        "{}in all     {seconds:.1} s, from submission to the published checkpoint\n{}",
        cli::summary(&report),
        demo::farewell(&checkpoint, folder)
    ))?;
    Ok(SUCCEEDED)
}

impl From<ClientError> for AppError {
    fn from(error: ClientError) -> Self {
        Self::Client(Box::new(error))
    }
}
