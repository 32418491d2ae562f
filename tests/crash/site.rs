//! A data folder and the server on it, which is started again on the same port whenever it was killed.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use reqwest::{Client, Method, Response};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Long enough for a slow machine, short enough to fail a test.
const PATIENCE: Duration = Duration::from_mins(4);
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct Site {
    folder: TempDir,
    port: u16,
    lease: &'static str,
    server: Option<Child>,
    http: Client,
}

impl Site {
    pub(crate) async fn start() -> Self {
        Self::with_lease("2s").await
    }

    pub(crate) async fn with_lease(lease: &'static str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let http = Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
        let mut site = Self { folder: tempfile::tempdir().unwrap(), port, lease, server: None, http };
        site.ensure_running().await;
        site
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let mut command = Command::new(env!("CARGO_BIN_EXE_graspd"));
        command.env_clear().current_dir(self.folder.path()).args(arguments);
        command.env("GRASPD_MODELS_DIR", &fixtures).env("GRASPD_DATASETS_DIR", fixtures.join("text"));
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.folder.path());
        command
    }

    /// The server's folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the server unless it runs, and waits until it is ready.
    pub(crate) async fn ensure_running(&mut self) {
        let lives = self.server.as_mut().is_some_and(|server| server.try_wait().unwrap().is_none());
        if !lives {
            let listen = format!("127.0.0.1:{}", self.port);
            let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log")).unwrap();
            let mut command = self.command(&["serve", "--listen", &listen, "--lease", self.lease, "--rate-limit", "0"]);
            self.server = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        }
        self.until("the server is ready", async |site| {
            let ready = site.http.get(site.url("/readyz")).send().await;
            ready.ok().filter(|response| response.status() == 200).map(|_| ())
        })
        .await;
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn until<T>(&self, what: &str, probe: impl AsyncFn(&Self) -> Option<T>) -> T {
        let wait = async {
            loop {
                if let Some(found) = probe(self).await {
                    return found;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| {
            panic!("{what}: not within {PATIENCE:?}\n{}", fs::read_to_string(self.folder.path().join("log")).unwrap())
        })
    }

    async fn ask(&self, method: Method, path: &str, key: Option<&str>, body: Option<&Value>) -> Option<Response> {
        let mut request = self.http.request(method, self.url(path));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await.ok().filter(|response| response.status().is_success())
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.until(path, async |site| site.ask(Method::GET, path, None, None).await?.json().await.ok()).await
    }

    /// Submits until a reply comes through; the key keeps it one job.
    pub(crate) async fn submit(&self, key: &str) -> String {
        let job = json!({
            "model": "file:tiny-llama",
            "calibration": {"dataset": "file:calibration", "samples": 2, "sequence_length": 32},
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
        let path = format!("/v1/jobs/{id}");
        self.until("the end of a job", async |site| {
            let job: Value = site.ask(Method::GET, &path, None, None).await?.json().await.ok()?;
            match job["status"].as_str() {
                Some("failed") if job["error"]["code"] == "worker_crashed" => {
                    site.ask(Method::POST, &format!("{path}/resume"), None, None).await;
                    None
                }
                Some("succeeded" | "failed" | "cancelled") => Some(job),
                _ => None,
            }
        })
        .await
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

    fn children(&self) -> Vec<Pid> {
        let server = self.server.as_ref().unwrap().id().to_string();
        let parent = |pid: &str| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name, in parentheses, may hold anything; the state and the parent follow it.
            Some(stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.to_owned())
        };
        let names = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let children = names.filter(|pid| pid.parse::<u32>().is_ok() && parent(pid).as_ref() == Some(&server));
        children.filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
    }

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

    fn terminate(&mut self) {
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
