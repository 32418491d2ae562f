//! The demo: the whole service in a folder of its own, and one job through its front door.

use std::{
    io::{self, Write},
    path::Path,
    time::Instant,
};

use super::{AppError, Service, metrics, runtime};
use crate::{
    cli::{self, Bar, Ending},
    config::{self, LogArgs, MachineArgs, ServeArgs, Server},
    http::client::Client,
    telemetry,
};

/// Runs the demo and says what came of it.
pub(super) fn demo(log: LogArgs) -> Result<u8, AppError> {
    let _telemetry = telemetry::install_log(&config::log_settings_of_a_tool(&log)?)?;
    let data = tempfile::Builder::new().prefix("graspd-demo-").tempdir()?.keep();
    let server = Server::read(&settings(&data, log))?;
    cli::demo::write_samples(&server.machine.models_dir, &server.machine.datasets_dir)?;
    runtime()?.block_on(async {
        let service = Service::start(server, metrics()?).await?;
        let ended = submit_and_show(&service, &data).await;
        service.stop().await;
        ended
    })
}

/// Nothing of the caller's environment: the demo shows the same everywhere.
fn settings(data: &Path, log: LogArgs) -> ServeArgs {
    let given = |text: &str| Some(text.to_owned());
    let machine =
        MachineArgs { data_dir: Some(data.to_owned()), hf_hub_offline: given("1"), log, ..MachineArgs::default() };
    ServeArgs { listen: given("127.0.0.1:0"), machine, ..ServeArgs::default() }
}

async fn submit_and_show(service: &Service, data: &Path) -> Result<u8, AppError> {
    let begin = Instant::now();
    let client = Client::new(&format!("http://{}", service.address()))?;
    let id = client.submit(&cli::demo::job()).await?.id;
    writeln!(io::stderr(), "graspd listens on http://{} and has taken job {id}", service.address())?;
    let ending = cli::follow(&Bar::default(), &client, id).await;
    if ending == Ending::Succeeded {
        let report = client.report(id).await?;
        let folder = service.folder(id).await.unwrap_or_default();
        let seconds = begin.elapsed().as_secs_f64();
        let text = format!(
            "\n{}in all     {seconds:.1} s, from submission to the published checkpoint\n{}",
            cli::summary(&report),
            cli::demo::farewell(&folder, data)
        );
        cli::print(&text)?;
    }
    Ok(cli::tell(&ending))
}
