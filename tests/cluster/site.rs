//! API processes and workers, each with a data folder of its own as on a machine of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use reqwest::{Client, Method, Response};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    namespace::Namespace,
    port::free_port,
    postgres::Postgres,
    proxy::{Fault, Proxy, Target},
    s3::S3,
};

/// Long enough for a slow machine, short enough to fail a test.
const PATIENCE: Duration = Duration::from_mins(4);
const PAUSE: Duration = Duration::from_millis(50);

const WORKER: [&str; 3] = ["worker", "--lease", "2s"];

/// A process, and the machine it stands for.
struct Machine {
    arguments: Vec<String>,
    folder: PathBuf,
    process: Option<Child>,
    /// Bytes of its log when the process was started.
    said_before: usize,
    /// Its lines to the database and to the object store.
    lines: [Proxy; 2],
    /// Its own network, if it has one.
    network: Option<Namespace>,
}

impl Machine {
    /// Whether the process hears signals: before it does, one ends it as it ends any program.
    fn is_up(&self) -> bool {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let said = log.get(self.said_before..).unwrap_or_default();
        said.contains("the worker begins") || said.contains("graspd is listening")
    }
}

pub(crate) struct Site {
    folder: TempDir,
    pub(crate) postgres: Postgres,
    s3: S3,
    database: String,
    ports: Vec<u16>,
    machines: Vec<Machine>,
    http: Client,
}

impl Site {
    /// `None` where one of the servers is not installed.
    pub(crate) async fn start(apis: usize, workers: usize) -> Option<Self> {
        let (postgres, s3) = (Postgres::start()?, S3::start().await?);
        let database = postgres.database().await;
        let http = Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut site = Self { folder, postgres, s3, database, ports: Vec::new(), machines: Vec::new(), http };
        for _ in 0..apis {
            let port = free_port();
            site.ports.push(port);
            let listen = format!("127.0.0.1:{port}");
            site.add(&["serve", "--no-worker", "--rate-limit", "0", "--listen", &listen], None).await;
        }
        for number in 0..workers {
            let network = if number == 0 { Namespace::new() } else { None };
            site.add(&WORKER, network).await;
        }
        site.ensure_running();
        site.until("the API is ready", async |site| site.ask(Method::GET, "/readyz", None, None).await.map(drop)).await;
        Some(site)
    }

    async fn add(&mut self, arguments: &[&str], network: Option<Namespace>) {
        let host = network.as_ref().map_or("127.0.0.1", |network| &network.host);
        let lines = [
            Proxy::to(Target::Socket(self.postgres.socket()), host).await,
            Proxy::to(Target::Port(self.s3.port()), host).await,
        ];
        let folder = self.folder.path().join(self.machines.len().to_string());
        fs::create_dir(&folder).unwrap();
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        self.machines.push(Machine { arguments, folder, process: None, said_before: 0, lines, network });
    }

    /// One more worker, on a machine that knows nothing; its number.
    pub(crate) async fn add_worker(&mut self) -> usize {
        self.add(&WORKER, None).await;
        self.machines.len() - 1
    }

    fn command(&self, folder: &Path, arguments: &[String], network: Option<&Namespace>) -> Command {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let program = env!("CARGO_BIN_EXE_graspd");
        let mut command = network.map_or_else(|| Command::new(program), |network| network.command(program));
        command.env_clear().current_dir(folder).args(arguments).envs(self.s3.environment());
        command.env("GRASPD_DATABASE_URL", &self.database).env("HF_HUB_OFFLINE", "1").env("HF_HOME", folder);
        command.env("GRASPD_OBJECTS_URL", format!("s3://{}/site", S3::BUCKET));
        command.env("GRASPD_MODELS_DIR", &fixtures).env("GRASPD_DATASETS_DIR", fixtures.join("text"));
        command
    }

    /// Starts every process that does not run.
    pub(crate) fn ensure_running(&mut self) {
        for number in 0..self.machines.len() {
            let machine = &mut self.machines[number];
            if machine.process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_none()) {
                continue;
            }
            let machine = &self.machines[number];
            let log = fs::OpenOptions::new().create(true).append(true).open(machine.folder.join("log")).unwrap();
            let mut command = self.command(&machine.folder, &machine.arguments, machine.network.as_ref());
            let [postgres, s3] = &machine.lines;
            let database = self.database.split_once("localhost/").unwrap().1.split('?').next().unwrap();
            command.env(
                "GRASPD_DATABASE_URL",
                format!("postgres://graspd@{}/{database}?sslmode=disable", postgres.address),
            );
            command.env("AWS_ENDPOINT", format!("http://{}", s3.address));
            self.machines[number].said_before = self.log(number).len();
            self.machines[number].process = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        }
    }

    pub(crate) fn machines(&self) -> usize {
        self.machines.len()
    }

    /// Lets a machine's line to the database, or else to the object store, fail as it is told to.
    pub(crate) fn fail(&self, number: usize, database: bool, fault: Fault) {
        self.machines[number].lines[usize::from(!database)].set(fault);
    }

    /// Pulls the cable of a machine that has a network of its own, or plugs it in again; whether it has one.
    pub(crate) fn plug(&self, number: usize, plugged: bool) -> bool {
        let network = &self.machines[number].network;
        network.as_ref().inspect(|network| network.plug(plugged)).is_some()
    }

    /// Kills a process; its children die with it.
    pub(crate) fn kill(&mut self, number: usize) {
        let mut process = self.machines[number].process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Kills a process and takes its machine away.
    pub(crate) fn lose(&mut self, number: usize) {
        self.kill(number);
        fs::remove_dir_all(&self.machines[number].folder).unwrap();
        self.machines.remove(number);
    }

    /// Stops all processes as a service manager does.
    pub(crate) async fn stop(&mut self) {
        let up = |site: &Self| site.machines.iter().all(|machine| machine.process.is_none() || machine.is_up());
        self.until("all processes are up", async |site| up(site).then_some(())).await;
        for machine in &mut self.machines {
            if let Some(process) = &machine.process {
                kill_process(Pid::from_child(process), Signal::TERM).unwrap();
            }
        }
        for machine in &mut self.machines {
            let code = machine.process.take().map(|mut process| process.wait().unwrap());
            assert!(code.is_some_and(|code| code.success()), "{code:?}");
        }
    }

    pub(crate) fn log(&self, number: usize) -> String {
        fs::read_to_string(self.machines[number].folder.join("log")).unwrap_or_default()
    }

    /// Runs a command on a machine that knows nothing; its exit code and all it says.
    pub(crate) fn tool(&self, arguments: &[&str]) -> (i32, String) {
        let folder = tempfile::tempdir().unwrap();
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        fs::create_dir(folder.path().join("data")).unwrap();
        let output = self.command(folder.path(), &arguments, None).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    }

    pub(crate) async fn until<T>(&self, what: &str, probe: impl AsyncFn(&Self) -> Option<T>) -> T {
        let wait = async {
            loop {
                if let Some(found) = probe(self).await {
                    return found;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| {
            let logs: Vec<_> = (0..self.machines.len()).map(|number| self.log(number)).collect();
            panic!("{what}: not within {PATIENCE:?}\n{}", logs.join("\n--\n"))
        })
    }

    /// Asks the processes of the API one after the other, until one answers well.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Option<Response> {
        for port in &self.ports {
            let mut request = self.http.request(method.clone(), format!("http://127.0.0.1:{port}{path}"));
            if let Some(key) = key {
                request = request.header("idempotency-key", key);
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            if let Some(response) = request.send().await.ok().filter(|response| response.status().is_success()) {
                return Some(response);
            }
        }
        None
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.until(path, async |site| site.ask(Method::GET, path, None, None).await?.json().await.ok()).await
    }

    /// Submits until a reply comes through; the key keeps it one job.
    pub(crate) async fn submit(&self, key: &str, samples: u32, tokens: u32) -> String {
        let job = json!({
            "model": "file:tiny-llama",
            "calibration": {"dataset": "file:calibration", "samples": samples, "sequence_length": tokens},
            "grasp": {"preset": "paper", "layers": 3, "retain_ratio": 0.3, "schedule": "iterative"},
            "evaluation": null,
        });
        let accepted: Value = self
            .until("a submission", async |site| {
                site.ask(Method::POST, "/v1/jobs", Some(key), Some(&job)).await?.json().await.ok()
            })
            .await;
        accepted["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn job(&self, id: &str) -> Value {
        self.get(&format!("/v1/jobs/{id}")).await
    }

    /// The job when it is over. One that died too often without a step between is resumed, as a user would.
    pub(crate) async fn finish(&self, id: &str) -> Value {
        let path = format!("/v1/jobs/{id}");
        self.until("the end of a job", async |site| {
            let job: Value = site.ask(Method::GET, &path, None, None).await?.json().await.ok()?;
            match job["status"].as_str() {
                Some("failed") if job["error"]["code"] == "worker_crashed" || job["error"]["code"] == "internal" => {
                    site.ask(Method::POST, &format!("{path}/resume"), None, None).await;
                    None
                }
                Some("succeeded" | "failed" | "cancelled") => Some(job),
                _ => None,
            }
        })
        .await
    }

    /// A published file.
    pub(crate) async fn download(&self, id: &str, name: &str) -> Vec<u8> {
        let path = format!("/v1/jobs/{id}/artifacts/{name}");
        let bytes = self.until(&path, async |site| site.ask(Method::GET, &path, None, None).await?.bytes().await.ok());
        bytes.await.to_vec()
    }

    /// The keys of all objects, without the prefix.
    pub(crate) async fn objects(&self) -> Vec<String> {
        let mut found = Vec::new();
        loop {
            let after = found.last().map(|key| format!("&start-after=site/{key}")).unwrap_or_default();
            let url = format!("{}/{}?list-type=2&prefix=site/{after}", self.s3.endpoint(), S3::BUCKET);
            let text = self.http.get(url).send().await.unwrap().text().await.unwrap();
            let keys: Vec<_> =
                text.split("<Key>site/").skip(1).filter_map(|rest| rest.split("</Key>").next()).collect();
            if keys.is_empty() {
                return found;
            }
            found.extend(keys.into_iter().map(str::to_owned));
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for machine in &mut self.machines {
            if let Some(process) = &mut machine.process {
                // It may have died of what the test looks for.
                let _ = process.kill();
                let _ = process.wait();
            }
        }
    }
}
