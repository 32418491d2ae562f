//! The command line. Every setting has a flag and a variable; [`super`] turns both into each layer's settings.

#![expect(clippy::doc_markdown, reason = "the comments of arguments are the help text")]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{
    cli,
    http::client::{Client, ClientError},
    job::JobId,
    model,
};

/// Makes large language models smaller with GRASP: keeps of the redundant layers the singular values that matter.
#[derive(Debug, Parser)]
#[command(name = "graspd", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `serve` when absent.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The settings of `serve`, for when no command is named.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service: API and workers in one process (the default)
    Serve(Box<ServeArgs>),
    /// Run jobs and answer no requests: the other half of `serve --no-worker`, on this machine or another
    Worker(Box<WorkerArgs>),
    /// Compress one model without a server
    Compress {
        /// This machine.
        #[command(flatten)]
        machine: MachineArgs,
        /// The device to compute on: cpu, cuda:N or metal
        #[arg(long, value_name = "DEVICE", default_value = "cpu")]
        device: String,
        /// The job.
        #[command(flatten)]
        job: Box<cli::compress::Arguments>,
    },
    /// Compress one model to several sizes and compare what comes of it
    Sweep {
        /// This machine.
        #[command(flatten)]
        machine: MachineArgs,
        /// The device to compute on: cpu, cuda:N or metal
        #[arg(long, value_name = "DEVICE", default_value = "cpu")]
        device: String,
        /// The sweep.
        #[command(flatten)]
        sweep: Box<cli::sweep::Arguments>,
    },
    /// Score one model, dense or factored, without compressing it
    Eval {
        /// This machine.
        #[command(flatten)]
        machine: MachineArgs,
        /// The device to compute on: cpu, cuda:N or metal
        #[arg(long, value_name = "DEVICE", default_value = "cpu")]
        device: String,
        /// What to score.
        #[command(flatten)]
        job: cli::eval::Arguments,
    },
    /// Wait for a job of a server: exit code 0 succeeded, 1 failed, 2 cancelled, 3 no answer
    Wait {
        /// The job's id
        id: JobId,
        /// Which server, and who asks.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Submit, list, show, follow, cancel and download jobs of a server
    Jobs {
        /// Which server, and who asks.
        #[command(flatten)]
        server: ServerArgs,
        /// What to do.
        #[command(subcommand)]
        command: cli::jobs::JobsCommand,
    },
    /// Make, list, rotate and revoke API keys
    Keys {
        /// Where they are kept.
        #[command(flatten)]
        store: StoreArgs,
        /// What to do.
        #[command(subcommand)]
        command: cli::keys::KeysCommand,
    },
    /// Copy the queue's database while it is in use; the copy is checked before it appears
    Backup {
        /// What is kept.
        #[command(flatten)]
        store: StoreArgs,
        /// The new file
        file: PathBuf,
    },
    /// Write all of a database as lines of JSON, to move it to a database of the other kind
    Export {
        /// What is kept.
        #[command(flatten)]
        store: StoreArgs,
        /// The new file
        file: PathBuf,
    },
    /// Fill an empty database from such a file: all of it, or nothing
    Import {
        /// What is kept.
        #[command(flatten)]
        store: StoreArgs,
        /// The file
        file: PathBuf,
    },
    /// Hold the database, the events and the published files against each other: exit code 0 all is well, 1 it is not
    Verify {
        /// What is kept.
        #[command(flatten)]
        store: StoreArgs,
        /// Where published folders lie for all machines [default: the data folder]
        #[arg(long, env = "GRASPD_OBJECTS_URL", value_name = "URL")]
        objects_url: Option<String>,
    },
    /// Print the API's description, openapi.yaml
    Openapi,
    /// Ask the server on this machine whether it is ready: exit code 0 or 1
    Healthcheck {
        /// The address the server listens on [default: 127.0.0.1:8080]
        #[arg(long, env = "GRASPD_LISTEN", value_name = "HOST:PORT")]
        listen: Option<String>,
    },
    /// Measure how fast this machine compresses: per stage seconds, GFLOP/s, share of its sgemm rate, tokens/s, memory
    Bench {
        /// This machine.
        #[command(flatten)]
        machine: MachineArgs,
        /// The device to compute on: cpu, cuda:N or metal
        #[arg(long, value_name = "DEVICE", default_value = "cpu")]
        device: String,
        /// What to measure.
        #[command(flatten)]
        bench: Box<cli::bench::Arguments>,
    },
    /// Write a model with random weights in the shape of a published one, for measurements
    Synth {
        /// llama2-7b or smollm2-135m
        #[arg(long)]
        shape: model::Shape,
        /// Seed of the weights
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// The folder to fill
        dir: PathBuf,
    },
    /// Compress a small sample model through a real server and show what came of it
    Demo(LogArgs),
    /// Print a model's logits for given tokens as JSON, for holding it against other tools.
    #[command(hide = true)]
    Logits {
        /// The model's folder.
        folder: PathBuf,
        /// Token ids, comma-separated.
        #[arg(long, value_delimiter = ',', required = true)]
        tokens: Vec<u32>,
    },
    /// Run one job for a supervisor.
    #[command(hide = true)]
    RunJob {
        /// The job's work folder.
        #[arg(long)]
        work: PathBuf,
        /// The folder to fill.
        #[arg(long)]
        output: PathBuf,
        /// `cpu`, `cuda:N` or `metal`.
        #[arg(long)]
        device: String,
        /// Process id of the supervisor.
        #[arg(long)]
        parent: u32,
        /// The job's id.
        #[arg(long)]
        job: JobId,
        /// `X-Request-Id` of its submission.
        #[arg(long)]
        request_id: Option<String>,
        /// The trace of its submission.
        #[arg(long)]
        traceparent: Option<String>,
        /// This machine.
        #[command(flatten)]
        machine: MachineArgs,
    },
}

/// How to log.
#[derive(Args, Clone, Debug, Default)]
pub struct LogArgs {
    /// Log format on standard error: text or json [default: text]
    #[arg(long, env = "GRASPD_LOG", value_name = "FORMAT")]
    pub log: Option<String>,
    /// What to log: error, warn, info, debug, or a filter such as info,graspd::worker=debug [default: info]
    #[arg(long, env = "GRASPD_LOG_LEVEL", value_name = "FILTER")]
    pub log_level: Option<String>,
    /// OpenTelemetry collector to send spans to (OTLP over HTTP), such as http://localhost:4318 [default: none]
    #[cfg(feature = "otlp")]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

/// Where models, texts and everything kept lie on this machine.
#[derive(Args, Clone, Debug, Default)]
pub struct MachineArgs {
    /// Folder for everything that is kept [default: data]
    #[arg(long, env = "GRASPD_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Folder of `file:NAME` models [default: <data>/models]
    #[arg(long, env = "GRASPD_MODELS_DIR", value_name = "DIR")]
    pub models_dir: Option<PathBuf>,
    /// Folder of texts, `<name>/<split>.txt` and `file:NAME` [default: <data>/datasets]
    #[arg(long, env = "GRASPD_DATASETS_DIR", value_name = "DIR")]
    pub datasets_dir: Option<PathBuf>,
    /// Memory that jobs may use together, such as 8GiB [default: nine tenths of the machine's]
    #[arg(long, env = "GRASPD_MEMORY_LIMIT", value_name = "BYTES")]
    pub memory_limit: Option<String>,
    /// Access token for private and gated models [default: the token file under HF_HOME]
    #[arg(long, env = "HF_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub hf_token: Option<String>,
    /// The hub, or a mirror of it [default: https://huggingface.co]
    #[arg(long, env = "HF_ENDPOINT", value_name = "URL")]
    pub hf_endpoint: Option<String>,
    /// The hub's folder on this machine, shared with other tools [default: ~/.cache/huggingface]
    #[arg(long, env = "HF_HOME", value_name = "DIR")]
    pub hf_home: Option<PathBuf>,
    /// Never ask the hub; use what its cache holds
    #[arg(long, env = "HF_HUB_OFFLINE", value_name = "BOOLEAN", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    pub hf_hub_offline: Option<String>,
    /// How to log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The service.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// Address to listen on [default: 127.0.0.1:8080]
    #[arg(long, env = "GRASPD_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Only answer requests: jobs are run by `graspd worker` in processes of its own
    #[arg(long)]
    pub no_worker: bool,
    /// What runs jobs.
    #[command(flatten)]
    pub work: WorkArgs,
    /// The front.
    #[command(flatten)]
    pub front: FrontArgs,
    /// This machine.
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// A process that runs jobs and answers no requests.
#[derive(Args, Clone, Debug, Default)]
pub struct WorkerArgs {
    /// Run one job that waits, if there is one, and exit: 0 succeeded or none waits, 1 failed, 2 cancelled, 4 back in the queue
    #[arg(long)]
    pub once: bool,
    /// Address to answer /livez, /readyz and /metrics on, to anybody who asks [default: none]
    #[arg(long, env = "GRASPD_METRICS_LISTEN", value_name = "HOST:PORT")]
    pub metrics_listen: Option<String>,
    /// What runs jobs.
    #[command(flatten)]
    pub work: WorkArgs,
    /// This machine.
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// The queue, and what runs its jobs.
#[derive(Args, Clone, Debug, Default)]
pub struct WorkArgs {
    /// The queue's database, sqlite:FILE or postgres://USER:PASSWORD@HOST/NAME [default: sqlite:<data>/graspd.db]
    #[arg(long, env = "GRASPD_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Connections to a PostgreSQL server, at most [default: 8, and one for each slot]
    #[arg(long, env = "GRASPD_DATABASE_CONNECTIONS", value_name = "N")]
    pub database_connections: Option<String>,
    /// Where published folders, checkpoints, logs and uploads lie for all machines: s3://BUCKET/PREFIX or file:///DIR;
    /// the store's own settings are its usual variables, such as AWS_ENDPOINT [default: the data folder]
    #[arg(long, env = "GRASPD_OBJECTS_URL", value_name = "URL")]
    pub objects_url: Option<String>,
    /// Devices to run jobs on, comma-separated: cpu, cuda:0, cuda:1, metal [default: cpu]
    #[arg(long, env = "GRASPD_DEVICES", value_name = "DEVICES")]
    pub devices: Option<String>,
    /// Jobs at once on a device [default: 1]
    #[arg(long, env = "GRASPD_SLOTS", value_name = "N")]
    pub slots: Option<String>,
    /// How long a job stays with a worker that is not heard of, at least 1s [default: 30s]
    #[arg(long, env = "GRASPD_LEASE", value_name = "DURATION")]
    pub lease: Option<String>,
    /// After how long without any progress a job's process is stuck and is ended [default: 10m]
    #[arg(long, env = "GRASPD_STALL", value_name = "DURATION")]
    pub stall: Option<String>,
}

/// Who may ask for how much.
#[derive(Args, Clone, Debug, Default)]
pub struct FrontArgs {
    /// Listen beyond this machine although there is no key: whoever reaches the port may do everything
    #[arg(long, env = "GRASPD_ALLOW_ANONYMOUS", value_name = "BOOLEAN", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    pub allow_anonymous: Option<String>,
    /// Requests a second of one key or one address, 0 for no limit [default: 50]
    #[arg(long, env = "GRASPD_RATE_LIMIT", value_name = "N")]
    pub rate_limit: Option<String>,
    /// Jobs that may wait in all [default: 10000]
    #[arg(long, env = "GRASPD_QUEUE_LIMIT", value_name = "N")]
    pub queue_limit: Option<String>,
    /// Jobs of one tenant that may wait [default: 1000]
    #[arg(long, env = "GRASPD_TENANT_QUEUE_LIMIT", value_name = "N")]
    pub tenant_queue_limit: Option<String>,
    /// Longest uploaded text [default: 256MB]
    #[arg(long, env = "GRASPD_DATASET_LIMIT", value_name = "BYTES")]
    pub dataset_limit: Option<String>,
    /// All uploaded texts of one tenant [default: 2GB]
    #[arg(long, env = "GRASPD_TENANT_DATASETS_LIMIT", value_name = "BYTES")]
    pub tenant_datasets_limit: Option<String>,
    /// How long, or up to which size, ended jobs are kept, such as 30d,500GB [default: for ever]
    #[arg(long, env = "GRASPD_RETENTION", value_name = "AGE,BYTES")]
    pub retention: Option<String>,
    /// Whether jobs may name a webhook on the public internet [default: off]
    #[arg(long, env = "GRASPD_WEBHOOKS", value_name = "BOOLEAN", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    pub webhooks: Option<String>,
    /// What webhooks are signed with, whsec_…; two, separated by a comma, while one takes the place of the other
    #[arg(long, env = "GRASPD_WEBHOOK_SECRET", value_name = "SECRET", hide_env_values = true)]
    pub webhook_secret: Option<String>,
}

/// Where what is kept lies.
#[derive(Args, Clone, Debug, Default)]
pub struct StoreArgs {
    /// Folder for everything that is kept [default: data]
    #[arg(long, env = "GRASPD_DATA_DIR", value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// The queue's database, sqlite:FILE or postgres://USER:PASSWORD@HOST/NAME [default: sqlite:<data>/graspd.db]
    #[arg(long, env = "GRASPD_DATABASE_URL", value_name = "URL", hide_env_values = true, global = true)]
    pub database_url: Option<String>,
}

/// Which server, and who asks.
#[derive(Args, Clone, Debug)]
pub struct ServerArgs {
    /// The server's address
    #[arg(long, env = "GRASPD_SERVER", value_name = "URL", default_value = "http://127.0.0.1:8080", global = true)]
    pub server: String,
    /// The key, where the server wants one
    #[arg(long, env = "GRASPD_KEY", value_name = "KEY", hide_env_values = true, global = true)]
    pub key: Option<String>,
}

impl ServerArgs {
    /// A client of that server. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::InvalidUrl`].
    pub fn client(&self) -> Result<Client, ClientError> {
        Client::with_key(&self.server, self.key.as_deref().filter(|key| !key.is_empty()))
    }
}
