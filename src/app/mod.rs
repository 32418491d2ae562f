//! The only file that wires everything: a parsed command line comes in, an exit code goes out.

mod assess;
mod bench;
mod demo;
mod kept;
mod keys;
mod logits;
mod moving;
mod one_shot;
mod planner;
mod publisher;
mod service;
mod signals;
mod sweep;
mod verify;
mod work;

use std::{io, path::Path, process::ExitCode, time::Duration};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::runtime::Runtime;

pub use one_shot::{OneShotError, compress};
pub use planner::TheMethod;
pub use publisher::HubPublisher;
pub use service::{Service, ServiceError};

use self::signals::Signals;
use crate::{
    artifact::ArtifactError,
    checkpoint,
    cli::{self, Bar, FAILED, INTERRUPTED, NO_ANSWER, SUCCEEDED},
    config::{self, Cli, Command, ConfigError, Machine, MachineArgs, ServeArgs, Server},
    http::{self, client::ClientError},
    job::{Progress, SpecError, Stage},
    model,
    queue::{SqliteStore, StoreError},
    telemetry::{self, TelemetryError},
    worker::{self, Presence, child},
};

/// How long a stopped service waits for file operations under way.
const FAREWELL: Duration = Duration::from_secs(1);

/// A command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A setting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Logs or metrics.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The arguments of `compress`.
    #[error(transparent)]
    Arguments(#[from] cli::compress::ArgumentsError),
    /// The arguments of `eval`.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A one-shot job.
    #[error(transparent)]
    OneShot(#[from] OneShotError),
    /// A child process.
    #[error(transparent)]
    Child(#[from] child::ChildError),
    /// The service.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The database.
    #[error("the database (GRASPD_DATABASE_URL, --database-url): {0}")]
    Store(#[from] StoreError),
    /// The published folders.
    #[error("the published folders (GRASPD_DATA_DIR, GRASPD_OBJECTS_URL): {0}")]
    Artifacts(#[from] ArtifactError),
    /// There is no such key.
    #[error("there is no key {0}: `graspd keys list` shows them all")]
    NoSuchKey(String),
    /// A server did not do what it was asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server on this machine is not ready.
    #[error("not ready: {0}")]
    NotReady(String),
    /// A job of a server.
    #[error(transparent)]
    Jobs(#[from] cli::jobs::JobsError),
    /// Model files.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// A report cannot be written as JSON.
    #[error("the report: {0}")]
    Json(#[from] serde_json::Error),
    /// Standard output, signals or threads.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl AppError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::OneShot(OneShotError::Cancelled) => INTERRUPTED,
            Self::Client(_) => NO_ANSWER,
            Self::Jobs(error) => cli::jobs::exit_code(error),
            _ => FAILED,
        }
    }
}

/// Does what the command line says.
pub fn run(cli: Cli) -> ExitCode {
    ExitCode::from(dispatch(cli).unwrap_or_else(|error| {
        cli::complain(&error.to_string());
        error.exit_code()
    }))
}

fn dispatch(cli: Cli) -> Result<u8, AppError> {
    match cli.command.unwrap_or(Command::Serve(Box::new(cli.serve))) {
        Command::RunJob { work, output, device, parent, job, request_id, traceparent, machine } => {
            child::settle_in(parent)?;
            let machine = Machine::read(&machine)?;
            let _telemetry = telemetry::install_log(&machine.telemetry)?;
            let _presence = Presence::join(&machine.data_dir)?;
            let origin = child::Origin { job, request_id, traceparent };
            child::run(&child::Assignment { work, output, settings: machine.pipeline(device), origin })?;
            Ok(SUCCEEDED)
        }
        Command::Compress { machine, device, job } => compress_here(&machine, device, &job),
        Command::Sweep { machine, device, sweep } => {
            let settings = Machine::read(&machine)?;
            let _telemetry = telemetry::install_log(&config::log_settings_of_a_tool(&machine.log)?)?;
            sweep::sweep(&sweep, &settings.pipeline(device))
        }
        Command::Eval { machine, device, job } => eval_here(&machine, device, &job),
        Command::Healthcheck { listen } => healthcheck(listen.as_ref()),
        Command::Serve(args) => serve(&args),
        Command::Worker(args) => work::work(&args),
        Command::Wait { id, server } => {
            let client = server.client()?;
            Ok(cli::tell(&runtime()?.block_on(cli::follow(&Bar::default(), &client, id))))
        }
        Command::Jobs { server, command } => Ok(runtime()?.block_on(cli::jobs::jobs(&server.client()?, command))?),
        Command::Keys { store, command } => keys::keys(&store, command),
        Command::Backup { store, file } => {
            let (_, database) = config::kept(&store)?;
            runtime()?.block_on(SqliteStore::backup(&database, &file))?;
            Ok(SUCCEEDED)
        }
        Command::Export { store, file } => moving::export(&store, &file),
        Command::Import { store, file } => moving::import(&store, &file),
        Command::Verify { store, objects_url } => verify::verify(&store, objects_url.as_ref()),
        Command::Openapi => {
            cli::print(&http::openapi_yaml())?;
            Ok(SUCCEEDED)
        }
        Command::Demo(log) => demo::demo(log),
        Command::Logits { folder, tokens } => logits::logits(&folder, &tokens).map(|()| SUCCEEDED),
        Command::Bench { machine, device, bench } => bench::bench(&Machine::read(&machine)?, &device, &bench),
        Command::Synth { shape, seed, dir } => synthesize(shape, seed, &dir),
    }
}

fn compress_here(machine: &MachineArgs, device: String, job: &cli::compress::Arguments) -> Result<u8, AppError> {
    let spec = job.job()?;
    let settings = Machine::read(machine)?;
    let _telemetry = telemetry::install_log(&config::log_settings_of_a_tool(&machine.log)?)?;
    let report = compress(&spec, &settings.pipeline(device), &job.out, signals::flag()?)?;
    cli::print(&if job.json {
        format!("{}\n", serde_json::to_string_pretty(&report)?)
    } else {
        format!("{}checkpoint {}\n", cli::summary(&report), job.out.display())
    })?;
    Ok(SUCCEEDED)
}

fn synthesize(shape: model::Shape, seed: u64, folder: &Path) -> Result<u8, AppError> {
    let bar = Bar::default();
    model::synthesize(shape, seed, folder, &mut |done, total| {
        bar.show(&Progress::new(Stage::Export, done as u64, total as u64));
        Ok(())
    })?;
    bar.end();
    Ok(SUCCEEDED)
}

fn eval_here(machine: &MachineArgs, device: String, job: &cli::eval::Arguments) -> Result<u8, AppError> {
    let spec = job.job()?;
    let settings = Machine::read(machine)?;
    let _telemetry = telemetry::install_log(&config::log_settings_of_a_tool(&machine.log)?)?;
    let report = assess::assess(&spec, &settings.pipeline(device), job.work.as_deref(), signals::flag()?)?;
    cli::print(&if job.json {
        format!("{}\n", serde_json::to_string_pretty(&cli::eval::scores(&report))?)
    } else {
        cli::eval::scores_table(&report)
    })?;
    Ok(SUCCEEDED)
}

fn serve(args: &ServeArgs) -> Result<u8, AppError> {
    let runtime = runtime()?;
    // Before all else: who is asked to stop while it starts ends as one that ran.
    let mut signals = runtime.block_on(async { Signals::listen() })?;
    let server = Server::read(args)?;
    let _telemetry = telemetry::install_log(&server.machine.telemetry)?;
    let served = runtime.block_on(async {
        let service = tokio::select! {
            service = Service::start(server, metrics()?) => service?,
            () = signals.received() => return Ok(SUCCEEDED),
        };
        signals.received().await;
        service.stop().await;
        Ok(SUCCEEDED)
    });
    // A file operation that hangs must not keep a stopped service alive.
    runtime.shutdown_timeout(FAREWELL);
    served
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn metrics() -> Result<PrometheusHandle, TelemetryError> {
    telemetry::install_metrics(&[
        (http::REQUEST_SECONDS, &http::REQUEST_SECONDS_BUCKETS),
        (worker::ATTEMPT_SECONDS, &worker::ATTEMPT_SECONDS_BUCKETS),
        (worker::STAGE_SECONDS, &worker::ATTEMPT_SECONDS_BUCKETS),
    ])
}

fn healthcheck(listen: Option<&String>) -> Result<u8, AppError> {
    let listen = config::listen_address(listen)?;
    runtime()?.block_on(cli::healthcheck(&listen)).map_err(AppError::NotReady)?;
    Ok(SUCCEEDED)
}
