//! A data folder and the server on it, which is started again on the same port whenever it was killed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::{Client, Method, Response};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    frozen::{Frozen, children_of},
    port::free_port,
    secrets::{self, SECRETS},
};

/// Long enough for a slow machine, short enough to fail a test.
const PATIENCE: Duration = Duration::from_mins(4);
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct Site {
    folder: TempDir,
    port: u16,
    /// Arguments of `serve` beside the address.
    arguments: Vec<String>,
    /// Variables of its environment.
    environment: Vec<(&'static str, String)>,
    server: Option<Child>,
    /// How often the server ended without being asked to.
    pub(crate) deaths: u32,
    http: Client,
}

impl Site {
    pub(crate) async fn start() -> Self {
        let mut site = Self::at_rest(&["--lease", "2s"]);
        site.ensure_running().await;
        site
    }

    /// A site whose server has not been started yet.
    pub(crate) fn at_rest(arguments: &[&str]) -> Self {
        let http = Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let folder = tempfile::tempdir().unwrap();
        Self { folder, port: free_port(), arguments, environment: Vec::new(), server: None, deaths: 0, http }
    }

    /// Sets a variable for the servers that are started from here on.
    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value.to_owned()));
    }

    /// Replaces the arguments for the servers that are started from here on.
    pub(crate) fn argue(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let mut command = Command::new(env!("CARGO_BIN_EXE_graspd"));
        command.env_clear().current_dir(self.folder.path()).args(arguments);
        command.env("GRASPD_MODELS_DIR", &fixtures).env("GRASPD_DATASETS_DIR", fixtures.join("text"));
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.folder.path());
        for (name, value) in SECRETS {
            command.env(name, value);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn spawn(&mut self) {
        let listen = format!("127.0.0.1:{}", self.port);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = self.command(&["serve", "--listen", &listen, "--rate-limit", "0", "--webhooks=1"]);
        command.args(&self.arguments).stdout(Stdio::null()).stderr(log);
        self.server = Some(command.spawn().unwrap());
    }

    /// What all servers of this site have logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// All that the servers of this site keep and log.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The server's folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the server unless it runs, and waits until it is ready.
    pub(crate) async fn ensure_running(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.server.as_mut().map(|server| server.try_wait().unwrap()) {
                Some(None) => {}
                None => self.spawn(),
                Some(Some(_)) => {
                    self.deaths += 1;
                    self.spawn();
                }
            }
            let ready = self.http.get(self.url("/readyz")).send().await;
            if ready.is_ok_and(|response| response.status() == 200) {
                return;
            }
            assert!(Instant::now() < deadline, "the server is not ready\n{}", self.log());
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Runs `serve` until it gives up; its exit code and its log.
    pub(crate) fn serve_in_vain(&mut self) -> (i32, String) {
        self.spawn();
        let code = self.server.take().unwrap().wait().unwrap().code().unwrap();
        (code, self.log())
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
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
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}\n{}", self.log()))
    }

    async fn ask(&self, method: Method, path: &str, key: Option<&str>, body: Option<&Value>) -> Option<Response> {
        self.send(method, path, key, body).await.filter(|response| response.status().is_success())
    }

    /// Whatever comes back, if anything does.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Option<Response> {
        let mut request = self.http.request(method, self.url(path));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await.ok()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.until(path, async |site| site.ask(Method::GET, path, None, None).await?.json().await.ok()).await
    }

    /// Submits until a reply comes through; the key keeps it one job.
    pub(crate) async fn submit(&self, key: &str) -> String {
        self.until("a submission", async |site| site.try_submit(key, &job()).await).await
    }

    /// Submits once; the job's id, if a reply came through.
    pub(crate) async fn try_submit(&self, key: &str, job: &Value) -> Option<String> {
        let accepted: Value = self.ask(Method::POST, "/v1/jobs", Some(key), Some(job)).await?.json().await.ok()?;
        Some(accepted["id"].as_str().unwrap().to_owned())
    }

    /// Submits one job and keeps the server running until it is over.
    pub(crate) async fn see_through(&mut self, key: &str, job: &Value) -> (String, Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "{key} does not end\n{}", self.log());
            self.ensure_running().await;
            let Some(id) = self.try_submit(key, job).await else { continue };
            if let Some(job) = self.over(&id).await {
                return (id, job);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    pub(crate) async fn unfinished(&self, ids: &[String]) -> usize {
        let mut count = 0;
        for id in ids.iter().rev().take(8) {
            let job = self.get(&format!("/v1/jobs/{id}")).await;
            count += usize::from(matches!(job["status"].as_str(), Some("queued" | "running")));
        }
        count
    }

    pub(crate) async fn until_running(&self, id: &str) {
        let path = format!("/v1/jobs/{id}");
        self.until("the job runs", async |site| {
            let job: Value = site.ask(Method::GET, &path, None, None).await?.json().await.ok()?;
            (job["status"] == "running" && job["progress"].is_object()).then_some(())
        })
        .await;
    }

    /// The job when it is over. One that died too often without a step between is resumed, as a user would.
    pub(crate) async fn finish(&self, id: &str) -> Value {
        self.until("the end of a job", async |site| site.over(id).await).await
    }

    /// The job when it is over, however.
    pub(crate) async fn finish_without_resume(&self, id: &str) -> Value {
        let path = format!("/v1/jobs/{id}");
        self.until("the end of a job", async |site| {
            let job = site.get(&path).await;
            matches!(job["status"].as_str(), Some("succeeded" | "failed" | "cancelled")).then_some(job)
        })
        .await
    }

    async fn over(&self, id: &str) -> Option<Value> {
        let path = format!("/v1/jobs/{id}");
        let job: Value = self.ask(Method::GET, &path, None, None).await?.json().await.ok()?;
        match job["status"].as_str() {
            Some("failed") if job["error"]["code"] == "worker_crashed" => {
                self.ask(Method::POST, &format!("{path}/resume"), None, None).await;
                None
            }
            Some("succeeded" | "failed" | "cancelled") => Some(job),
            _ => None,
        }
    }

    pub(crate) async fn sha256(&self, id: &str, name: &str) -> String {
        let artifacts = self.get(&format!("/v1/jobs/{id}/artifacts")).await;
        let file = artifacts["data"].as_array().unwrap().iter().find(|file| file["name"] == name).unwrap();
        file["sha256"].as_str().unwrap().to_owned()
    }

    /// Kills the processes that run jobs.
    pub(crate) fn kill_child(&self) {
        self.children().into_iter().for_each(kill);
    }

    /// Kills the server, and with `all` its children at the same moment; else they notice by themselves.
    pub(crate) fn kill_server(&mut self, all: bool) {
        let children = self.children();
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        if all {
            children.into_iter().for_each(kill);
        }
        server.wait().unwrap();
    }

    /// Where the server listens.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Whether the server's process is over.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.exit_code().is_some()
    }

    /// With what it ended, if it did.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.server.as_mut().unwrap().try_wait().unwrap().and_then(|status| status.code())
    }

    /// The server's process.
    pub(crate) fn process(&self) -> Pid {
        Pid::from_child(self.server.as_ref().unwrap())
    }

    /// Sends a signal to every process that runs a job; whether there was one.
    pub(crate) fn signal_children(&self, signal: Signal) -> bool {
        let children = self.children();
        for child in &children {
            // It may have ended by itself.
            let _ = kill_process(*child, signal);
        }
        !children.is_empty()
    }

    /// Stops the server and its children in the middle of whatever they do, and moves to another port.
    pub(crate) fn freeze(&mut self) -> Frozen {
        let (children, server) = (self.children(), self.server.take().unwrap());
        let stopped = children.iter().chain([&Pid::from_child(&server)]).copied().collect::<Vec<_>>();
        for pid in &stopped {
            kill_process(*pid, Signal::STOP).unwrap();
        }
        self.port = free_port();
        Frozen::new(server, stopped)
    }

    fn children(&self) -> Vec<Pid> {
        children_of(self.process())
    }
}

impl Site {
    /// Stops the server as a service manager does, once it has swept up behind the jobs.
    pub(crate) async fn stop_and_sweep(&mut self) {
        // The sweep runs when the server starts.
        self.terminate();
        self.ensure_running().await;
        self.until("the sweep", async |site| {
            let is_empty = |name: &str| fs::read_dir(site.data().join(name)).is_ok_and(|mut dir| dir.next().is_none());
            (is_empty("work") && is_empty("staging")).then_some(())
        })
        .await;
        self.terminate();
    }

    pub(crate) fn terminate(&mut self) {
        let mut server = self.server.take().unwrap();
        kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
        assert!(server.wait().unwrap().success(), "SIGTERM ends a server with 0");
    }

    /// Runs a command on the data folder; its exit code and all it says.
    pub(crate) fn tool(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    }

    pub(crate) fn verify(&self) {
        let (code, said) = self.tool(&["verify"]);
        assert!(code == 0 && said.contains("all is well"), "{said}");
        secrets::stay_secret(self.folder.path());
    }

    /// Changes one byte of a published file.
    pub(crate) fn damage(&self, id: &str, name: &str) {
        let path = self.data().join("artifacts").join(id).join(name);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    }

    /// Puts a backup in the place of the database; what was published since is gone.
    pub(crate) fn restore(&self, copy: &str) {
        for left in ["graspd.db", "graspd.db-wal", "graspd.db-shm", "artifacts", "work"] {
            let path = self.data().join(left);
            let _ = fs::remove_file(&path);
            let _ = fs::remove_dir_all(&path);
        }
        fs::rename(self.folder.path().join(copy), self.data().join("graspd.db")).unwrap();
    }
}

/// A short job.
pub(crate) fn job() -> Value {
    json!({
        "model": "file:tiny-llama",
        "calibration": {"dataset": "file:calibration", "samples": 2, "sequence_length": 32},
        "grasp": {"preset": "paper", "layers": 3, "retain_ratio": 0.3, "schedule": "iterative"},
        "evaluation": null,
    })
}

fn kill(pid: Pid) {
    // It may have ended by itself.
    let _ = kill_process(pid, Signal::KILL);
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}
