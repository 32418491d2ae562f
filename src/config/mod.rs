//! The only reader of the environment. Flags and variables come in, each layer's settings come out.
//!
//! | variable | flag | default |
//! |---|---|---|
//! | `GRASPD_LISTEN` | `--listen` | `127.0.0.1:8080` |
//! | `GRASPD_METRICS_LISTEN` | `--metrics-listen` | none; of a worker |
//! | `GRASPD_DATA_DIR` | `--data-dir` | `data` |
//! | `GRASPD_DATABASE_URL` | `--database-url` | `sqlite:<data>/graspd.db` |
//! | `GRASPD_DATABASE_CONNECTIONS` | `--database-connections` | 8, and one for each slot |
//! | `GRASPD_OBJECTS_URL` | `--objects-url` | the data folder |
//! | `GRASPD_MODELS_DIR` | `--models-dir` | `<data>/models` |
//! | `GRASPD_DATASETS_DIR` | `--datasets-dir` | `<data>/datasets` |
//! | `GRASPD_DEVICES` | `--devices` | `cpu` |
//! | `GRASPD_SLOTS` | `--slots` | `1` |
//! | `GRASPD_LEASE` | `--lease` | `30s` |
//! | `GRASPD_STALL` | `--stall` | `10m` |
//! | `GRASPD_ALLOW_ANONYMOUS` | `--allow-anonymous` | off |
//! | `GRASPD_RATE_LIMIT` | `--rate-limit` | `50` |
//! | `GRASPD_QUEUE_LIMIT` | `--queue-limit` | `10000` |
//! | `GRASPD_TENANT_QUEUE_LIMIT` | `--tenant-queue-limit` | `1000` |
//! | `GRASPD_DATASET_LIMIT` | `--dataset-limit` | `256MB` |
//! | `GRASPD_TENANT_DATASETS_LIMIT` | `--tenant-datasets-limit` | `2GB` |
//! | `GRASPD_RETENTION` | `--retention` | for ever |
//! | `GRASPD_WEBHOOKS` | `--webhooks` | off |
//! | `GRASPD_WEBHOOK_SECRET` | `--webhook-secret` | |
//! | `GRASPD_MEMORY_LIMIT` | `--memory-limit` | nine tenths of the memory, shared by the slots |
//! | `GRASPD_LOG` | `--log` | `text` |
//! | `GRASPD_LOG_LEVEL` | `--log-level` | `info` |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT` | `--otlp-endpoint` | none; only with the feature `otlp` |
//! | `HF_TOKEN` | `--hf-token` | the file `token` under `HF_HOME` |
//! | `HF_ENDPOINT` | `--hf-endpoint` | `https://huggingface.co` |
//! | `HF_HOME` | `--hf-home` | `~/.cache/huggingface` |
//! | `HF_HUB_OFFLINE` | `--hf-hub-offline` | off |
//!
//! A variable that is set to nothing counts as not set.

mod args;
mod front;
mod value;

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

pub use args::{Cli, Command, FrontArgs, LogArgs, MachineArgs, ServeArgs, ServerArgs, StoreArgs, WorkArgs, WorkerArgs};
pub use value::ConfigError;

pub use self::front::Front;
use self::value::Setting;
use crate::{artifact::DiskStore, checkpoint::HubSettings, pipeline, queue::is_postgres, telemetry, worker};

/// Variables of the server that a child must not see.
const SERVER_ONLY: [&str; 7] = [
    "GRASPD_DATABASE_URL",
    "DATABASE_URL",
    "PGPASSWORD",
    "PGPASSFILE",
    "GRASPD_LISTEN",
    "GRASPD_METRICS_LISTEN",
    "GRASPD_WEBHOOK_SECRET",
];
const HUB: &str = "https://huggingface.co";
/// Before the first retry of a request to the hub.
const HUB_RETRY_DELAY: Duration = Duration::from_secs(2);
/// Connections to a PostgreSQL server besides those of the slots.
const CONNECTIONS: usize = 8;
const MOST_CONNECTIONS: usize = 1_000;
/// What the variables of object stores begin with.
const OF_STORES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];
/// Beats in a lease, at least.
const BEATS: u32 = 5;
/// Who waits is woken by a server, so that a look into its empty queue need not be frequent; many look.
const IDLE_ON_A_SERVER: Duration = Duration::from_millis(1_500);
const LISTEN: &str = "127.0.0.1:8080";

/// Where models, texts and everything kept lie.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Everything that is kept.
    pub data_dir: PathBuf,
    /// `file:NAME` models.
    pub models_dir: PathBuf,
    /// Texts.
    pub datasets_dir: PathBuf,
    /// The hub.
    pub hub: HubSettings,
    /// Bytes of memory a job may use.
    pub memory_limit: u64,
    /// How to log.
    pub telemetry: telemetry::Settings,
}

/// An object store.
#[derive(Clone)]
pub struct Objects {
    /// `s3://bucket/prefix` or `file:///folder`; others by feature.
    pub url: String,
    /// The store's own settings, by the names of their variables; some are secrets.
    pub options: Vec<(String, String)>,
}

/// What runs jobs. It cannot be shown: the database's address may hold a password.
#[derive(Clone)]
pub struct Worker {
    /// The queue: a path, a `sqlite:` URL or a `postgres:` URL.
    pub database_url: String,
    /// Connections to a PostgreSQL server, at most; one more listens.
    pub database_connections: u32,
    /// Where what all machines share lies, if there are several.
    pub objects: Option<Objects>,
    /// The slots.
    pub worker: worker::Settings,
    /// This machine.
    pub machine: Machine,
}

/// The service. It cannot be shown either.
#[derive(Clone)]
pub struct Server {
    /// `host:port`.
    pub listen: String,
    /// The queue: a path, a `sqlite:` URL or a `postgres:` URL.
    pub database_url: String,
    /// Connections to a PostgreSQL server, at most; one more listens.
    pub database_connections: u32,
    /// Where what all machines share lies, if there are several.
    pub objects: Option<Objects>,
    /// Who may ask for how much.
    pub front: Front,
    /// Whether it runs jobs itself.
    pub works: bool,
    /// The slots.
    pub worker: worker::Settings,
    /// This machine.
    pub machine: Machine,
}

impl Machine {
    /// Reads the settings of this machine.
    ///
    /// # Errors
    /// [`ConfigError`] names the flag and the variable of a value that cannot be used.
    pub fn read(args: &MachineArgs) -> Result<Self, ConfigError> {
        let data_dir = absolute(args.data_dir.as_deref(), || PathBuf::from("data"))?;
        let hf_home = absolute(args.hf_home.as_deref(), || default_hf_home(&data_dir))?;
        Ok(Self {
            models_dir: absolute(args.models_dir.as_deref(), || data_dir.join("models"))?,
            datasets_dir: absolute(args.datasets_dir.as_deref(), || data_dir.join("datasets"))?,
            hub: HubSettings {
                endpoint: Setting::new("hf-endpoint", "HF_ENDPOINT", args.hf_endpoint.as_ref()).url(HUB)?,
                cache_dir: variable("HF_HUB_CACHE").map_or_else(|| hf_home.join("hub"), PathBuf::from),
                token: token(args.hf_token.as_deref(), &hf_home),
                offline: Setting::new("hf-hub-offline", "HF_HUB_OFFLINE", args.hf_hub_offline.as_ref()).boolean()?,
                retry_delay: HUB_RETRY_DELAY,
            },
            memory_limit: Setting::new("memory-limit", "GRASPD_MEMORY_LIMIT", args.memory_limit.as_ref())
                .bytes(pipeline::machine_bytes() / 10 * 9)?,
            telemetry: log_settings(&args.log)?,
            data_dir,
        })
    }

    /// What the method needs to know of this machine.
    pub fn pipeline(&self, device: String) -> pipeline::Settings {
        pipeline::Settings {
            models_dir: self.models_dir.clone(),
            published_dir: DiskStore::published_dir(&self.data_dir),
            datasets_dir: self.datasets_dir.clone(),
            hub: self.hub.clone(),
            device,
            memory_limit: self.memory_limit,
        }
    }

    /// The same settings as variables, for a child: a token must not show in a list of processes.
    fn as_environment(&self, slots: usize, objects: Option<&Objects>) -> worker::Environment {
        let offline = if self.hub.offline { "1" } else { "0" };
        let settings = [
            ("GRASPD_DATA_DIR", Some(self.data_dir.clone().into())),
            ("GRASPD_MODELS_DIR", Some(self.models_dir.clone().into())),
            ("GRASPD_DATASETS_DIR", Some(self.datasets_dir.clone().into())),
            ("GRASPD_MEMORY_LIMIT", Some((self.memory_limit / slots as u64).to_string().into())),
            ("HF_ENDPOINT", Some(self.hub.endpoint.clone().into())),
            ("HF_HUB_CACHE", Some(self.hub.cache_dir.clone().into())),
            ("HF_HUB_OFFLINE", Some(offline.into())),
            ("HF_TOKEN", self.hub.token.clone().map(OsString::from)),
            ("GRASPD_LOG", Some(self.telemetry.format.as_str().into())),
            ("GRASPD_LOG_LEVEL", Some(self.telemetry.filter.clone().into())),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", self.telemetry.otlp_endpoint.clone().map(OsString::from)),
        ];
        let secrets = objects.iter().flat_map(|objects| objects.options.iter().map(|(name, _)| name.as_str()));
        let removed = SERVER_ONLY.into_iter().chain(secrets).map(|name| (name, None));
        worker::Environment(settings.into_iter().chain(removed).map(|(name, value)| (name.into(), value)).collect())
    }
}

impl Worker {
    /// Reads the settings of what runs jobs.
    ///
    /// # Errors
    /// [`ConfigError`] names the flag and the variable of a value that cannot be used.
    pub fn read(work: &WorkArgs, machine: &MachineArgs) -> Result<Self, ConfigError> {
        let machine = Machine::read(machine)?;
        let database_url = database_in(&machine.data_dir, work.database_url.as_ref())?;
        let devices = Setting::new("devices", "GRASPD_DEVICES", work.devices.as_ref()).devices()?;
        let slots_per_device = Setting::new("slots", "GRASPD_SLOTS", work.slots.as_ref()).count(1, 64)?;
        let slots = devices.len() * slots_per_device;
        let connections =
            Setting::new("database-connections", "GRASPD_DATABASE_CONNECTIONS", work.database_connections.as_ref())
                .count(CONNECTIONS + slots, MOST_CONNECTIONS)?;
        let objects = objects(work.objects_url.as_ref())?;
        let worker = worker::Settings {
            program: program()?,
            arguments: vec!["run-job".into()],
            environment: machine.as_environment(slots, objects.as_ref()),
            work_dir: machine.data_dir.join("work"),
            log_dir: machine.data_dir.join("logs"),
            devices,
            slots_per_device,
            worker: worker::name(),
            retention: worker::Retention::default(),
            keeps_house: false,
            elsewhere: None,
            slot_memory: machine.memory_limit / slots as u64,
            timing: timing(work, is_postgres(&database_url))?,
        };
        let database_connections = u32::try_from(connections).unwrap_or(u32::MAX);
        Ok(Self { database_url, database_connections, objects, worker, machine })
    }
}

impl Server {
    /// Reads the settings of the service.
    ///
    /// # Errors
    /// [`ConfigError`] names the flag and the variable of a value that cannot be used.
    pub fn read(args: &ServeArgs) -> Result<Self, ConfigError> {
        let mut site = Worker::read(&args.work, &args.machine)?;
        site.worker.retention =
            Setting::new("retention", "GRASPD_RETENTION", args.front.retention.as_ref()).retention()?;
        site.worker.keeps_house = true;
        let Worker { database_url, database_connections, objects, worker, machine } = site;
        let listen = listen_address(args.listen.as_ref())?;
        let front = Front::read(&args.front)?;
        Ok(Self { listen, database_url, database_connections, objects, front, works: !args.no_worker, worker, machine })
    }
}

fn timing(args: &WorkArgs, on_a_server: bool) -> Result<worker::Timing, ConfigError> {
    let usual = worker::Timing::default();
    let lease = Setting::new("lease", "GRASPD_LEASE", args.lease.as_ref()).duration(usual.lease)?;
    let stall = Setting::new("stall", "GRASPD_STALL", args.stall.as_ref()).duration(usual.stall)?;
    // A process that is stuck may be unable to say anything too.
    let silence = usual.silence.min(stall);
    // A lease outlives the loss of a few beats.
    let idle = if on_a_server { IDLE_ON_A_SERVER } else { usual.idle };
    Ok(worker::Timing { lease, beat: usual.beat.min(lease / BEATS), silence, stall, idle, ..usual })
}

/// The object store of `--objects-url`, with what the environment says of it.
///
/// # Errors
/// [`ConfigError`] when it is no URL of a store.
pub fn objects(given: Option<&String>) -> Result<Option<Objects>, ConfigError> {
    let url = Setting::new("objects-url", "GRASPD_OBJECTS_URL", given).object_store()?;
    let options =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let of_a_store = |name: &str| OF_STORES.iter().any(|prefix| name.starts_with(prefix));
    Ok(url.map(|url| Objects { url, options: options.filter(|(name, _)| of_a_store(name)).collect() }))
}

fn database_in(data_dir: &Path, given: Option<&String>) -> Result<String, ConfigError> {
    // As a path and not as a URL, where a '?' or '%' in a folder's name would mean something else.
    let default = data_dir.join("graspd.db").display().to_string();
    Setting::new("database-url", "GRASPD_DATABASE_URL", given).database(default)
}

/// The database, and the folder that everything else kept lies in.
///
/// # Errors
/// [`ConfigError`] when one of the two cannot be used.
pub fn kept(args: &StoreArgs) -> Result<(PathBuf, String), ConfigError> {
    let data_dir = absolute(args.data_dir.as_deref(), || PathBuf::from("data"))?;
    let database = database_in(&data_dir, args.database_url.as_ref())?;
    Ok((data_dir, database))
}

/// The path of this program, to start it again with.
///
/// # Errors
/// [`ConfigError::Program`] when the system does not tell.
pub fn program() -> Result<PathBuf, ConfigError> {
    std::env::current_exe().map_err(ConfigError::Program)
}

/// The `host:port` of `--listen`.
///
/// # Errors
/// [`ConfigError`] when it is neither an address nor a host name with a port.
pub fn listen_address(value: Option<&String>) -> Result<String, ConfigError> {
    Setting::new("listen", "GRASPD_LISTEN", value).address(LISTEN)
}

/// The `host:port` of `--metrics-listen`, where there is one.
///
/// # Errors
/// [`ConfigError`] when it is neither an address nor a host name with a port.
pub fn metrics_address(value: Option<&String>) -> Result<Option<String>, ConfigError> {
    Setting::new("metrics-listen", "GRASPD_METRICS_LISTEN", value).address_if_any()
}

/// How to log.
///
/// # Errors
/// [`ConfigError`] when the format or the filter cannot be used.
pub fn log_settings(args: &LogArgs) -> Result<telemetry::Settings, ConfigError> {
    log_settings_or(args, "info")
}

/// How to log where a progress bar is drawn: only what is wrong, unless asked for more.
///
/// # Errors
/// [`ConfigError`] when the format or the filter cannot be used.
pub fn log_settings_of_a_tool(args: &LogArgs) -> Result<telemetry::Settings, ConfigError> {
    log_settings_or(args, "warn")
}

fn log_settings_or(args: &LogArgs, filter: &str) -> Result<telemetry::Settings, ConfigError> {
    Ok(telemetry::Settings {
        format: Setting::new("log", "GRASPD_LOG", args.log.as_ref()).parse(telemetry::LogFormat::Text)?,
        filter: Setting::new("log-level", "GRASPD_LOG_LEVEL", args.log_level.as_ref()).filter(filter)?,
        #[cfg(feature = "otlp")]
        otlp_endpoint: args.otlp_endpoint.clone().filter(|endpoint| !endpoint.is_empty()),
        #[cfg(not(feature = "otlp"))]
        otlp_endpoint: None,
    })
}

/// The value of a variable that has no flag, unless it is empty.
#[expect(clippy::disallowed_methods, reason = "config reads the environment")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn absolute(given: Option<&Path>, default: impl FnOnce() -> PathBuf) -> Result<PathBuf, ConfigError> {
    let path = given.filter(|path| !path.as_os_str().is_empty()).map_or_else(default, Path::to_owned);
    std::path::absolute(&path).map_err(|source: io::Error| ConfigError::Folder { path, source })
}

/// Where other tools of the hub keep their things; in a container without a home, the data folder.
fn default_hf_home(data_dir: &Path) -> PathBuf {
    let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache
        .or_else(|| std::env::home_dir().filter(|home| !home.as_os_str().is_empty()).map(|home| home.join(".cache")));
    cache.map_or_else(|| data_dir.join("huggingface"), |cache| cache.join("huggingface"))
}

fn token(given: Option<&str>, hf_home: &Path) -> Option<String> {
    let from_file = || {
        let path = variable("HF_TOKEN_PATH").map_or_else(|| hf_home.join("token"), PathBuf::from);
        std::fs::read_to_string(path).ok()
    };
    let plain = |text: String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    given.map(str::to_owned).and_then(plain).or_else(|| from_file().and_then(plain))
}

#[cfg(test)]
mod tests;
