//! `graspd jobs`: a thin client of the API. What it prints is for people, or with `--json` what the API sent.

use std::{
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
};

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Bar, Ending, FAILED, SUCCEEDED, follow, print, tell};
use crate::{
    http::{
        JobView,
        client::{Client, ClientError, JobFilter},
    },
    job::{JobId, Status},
};

const STYLE: &str = "{msg:>32} {bar:32} {bytes}/{total_bytes} {bytes_per_sec}";

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// Submit a job and print its id
    Submit {
        /// The job as JSON, the body of POST /v1/jobs; - reads standard input
        spec: PathBuf,
        /// Makes no second job when the same is sent again with the same key
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
        /// Follow it to its end: exit code 0 succeeded, 1 failed, 2 cancelled, 3 no answer
        #[arg(long)]
        wait: bool,
        /// Print the job as JSON
        #[arg(long)]
        json: bool,
    },
    /// List jobs, newest first
    List {
        /// Only jobs in this state
        #[arg(long)]
        status: Option<Status>,
        /// At most so many, up to 100
        #[arg(long, default_value_t = 20)]
        limit: u32,
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a job as JSON
    Get {
        /// The job's id
        id: JobId,
    },
    /// Follow a job to its end: exit code 0 succeeded, 1 failed, 2 cancelled, 3 no answer
    Wait {
        /// The job's id
        id: JobId,
        /// Print the job as JSON once it has ended
        #[arg(long)]
        json: bool,
    },
    /// Print a job's log
    Logs {
        /// The job's id
        id: JobId,
        /// Go on with what is logged until the job has ended
        #[arg(long)]
        follow: bool,
    },
    /// Cancel a job
    Cancel {
        /// The job's id
        id: JobId,
    },
    /// Download what a job has published, and check it
    Download {
        /// The job's id
        id: JobId,
        /// The folder to fill [default: the id]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// `graspd jobs` could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// The server did not.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file, or standard input or output.
    #[error("{what}: {source}")]
    Io {
        /// Which.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The spec is no JSON.
    #[error("{what}: {source}")]
    Json {
        /// Which file.
        what: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
}

fn io_error(what: impl ToString) -> impl FnOnce(io::Error) -> JobsError {
    move |source| JobsError::Io { what: what.to_string(), source }
}

/// Does what `graspd jobs` was asked, and gives the exit code.
///
/// # Errors
/// [`JobsError`] says what went wrong.
pub async fn jobs(client: &Client, command: JobsCommand) -> Result<u8, JobsError> {
    match command {
        JobsCommand::Submit { spec, idempotency_key, wait, json } => {
            let job = client.submit_once(&read_spec(&spec)?, idempotency_key.as_deref()).await?;
            let id = job.id;
            if !(wait && json) {
                say(&if json { pretty(&job)? } else { format!("{id}\n") })?;
            }
            if wait { watch(client, id, json).await } else { Ok(SUCCEEDED) }
        }
        JobsCommand::List { status, limit, json } => {
            let list = client.list(&JobFilter { status, limit }).await?;
            let table: String = list.data.iter().map(row).collect();
            say(&if json { pretty(&list)? } else { table }).map(|()| SUCCEEDED)
        }
        JobsCommand::Get { id } => say(&pretty(&client.get(id).await?)?).map(|()| SUCCEEDED),
        JobsCommand::Wait { id, json } => watch(client, id, json).await,
        JobsCommand::Logs { id, follow } => {
            client.logs(id, follow, |chunk| io::stdout().lock().write_all(chunk)).await?;
            Ok(SUCCEEDED)
        }
        JobsCommand::Cancel { id } => say(&format!("{}\n", client.cancel(id).await?.status)).map(|()| SUCCEEDED),
        JobsCommand::Download { id, out } => {
            download(client, id, &out.unwrap_or_else(|| id.to_string().into())).await.map(|()| SUCCEEDED)
        }
    }
}

async fn watch(client: &Client, id: JobId, json: bool) -> Result<u8, JobsError> {
    let ending = follow(&Bar::default(), client, id).await;
    if json && !matches!(ending, Ending::NoAnswer(_)) {
        say(&pretty(&client.get(id).await?)?)?;
    }
    Ok(tell(&ending))
}

fn read_spec(path: &Path) -> Result<serde_json::Value, JobsError> {
    let mut text = String::new();
    if path == Path::new("-") {
        io::stdin().read_to_string(&mut text).map_err(io_error("standard input"))?;
    } else {
        text = std::fs::read_to_string(path).map_err(io_error(path.display()))?;
    }
    serde_json::from_str(&text).map_err(|source| JobsError::Json { what: path.display().to_string(), source })
}

fn say(text: &str) -> Result<(), JobsError> {
    print(text).map_err(io_error("standard output"))
}

fn pretty(value: &impl serde::Serialize) -> Result<String, JobsError> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| format!("{text}\n"))
        .map_err(|source| JobsError::Json { what: "the server's answer".to_owned(), source })
}

fn row(job: &JobView) -> String {
    let at_work = job.stage.map_or(String::new(), |stage| match &job.progress {
        Some(progress) => format!("{stage} {}/{}", progress.done, progress.total),
        None => stage.to_string(),
    });
    format!("{}  {:<9}  {:<24}  {}\n", job.id, job.status.as_str(), at_work, job.spec.model)
}

async fn download(client: &Client, id: JobId, folder: &Path) -> Result<(), JobsError> {
    for artifact in client.artifacts(id).await? {
        let target = folder.join(&artifact.name);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(io_error(parent.display()))?;
        }
        let bar = bar(&artifact.name, artifact.bytes);
        client.download_watched(id, &artifact, &target, |bytes| bar.inc(bytes)).await?;
        bar.finish();
    }
    say(&format!("{}\n", folder.display()))
}

fn bar(name: &str, bytes: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(STYLE).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style).with_message(name.to_owned())
}

/// The exit code of a command that could not be carried out.
pub fn exit_code(error: &JobsError) -> u8 {
    match error {
        JobsError::Client(_) => super::NO_ANSWER,
        JobsError::Io { .. } | JobsError::Json { .. } => FAILED,
    }
}
