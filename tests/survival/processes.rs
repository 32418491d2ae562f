//! Processes that die of a signal, stand still, come back from the dead, or eat all memory.

use std::{fs, path::PathBuf, time::Duration};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::site::{Site, job};

#[tokio::test]
async fn a_child_that_dies_of_any_signal_costs_an_attempt_and_no_more() {
    let mut site = Site::start().await;
    let server = site.process();
    let mut again = 0;
    for (round, signal) in [Signal::ABORT, Signal::SEGV, Signal::BUS, Signal::ILL].into_iter().enumerate() {
        let id = site.submit(&format!("signal {round}")).await;
        site.until_running(&id).await;
        site.signal_children(signal);
        let done = site.finish(&id).await;
        assert_eq!(done["status"], "succeeded", "{done}");
        again += done["attempt"].as_u64().unwrap() - 1;
    }
    // One may have been done before the signal came; not all.
    assert!(again > 0, "no child died");
    assert_eq!(site.process(), server, "the server is untouched");
    site.stop_and_sweep().await;
    site.verify();
}

#[tokio::test]
async fn a_child_that_stands_still_is_ended_and_its_job_goes_on() {
    let mut site = Site::at_rest(&["--lease", "2s", "--stall", "4s"]);
    site.ensure_running().await;
    let id = site.submit("still").await;
    site.until_running(&id).await;
    assert!(site.signal_children(Signal::STOP));
    let done = site.finish(&id).await;
    assert_eq!((&done["status"], &done["attempt"]), (&Value::from("succeeded"), &Value::from(2)), "{done}");
    site.stop_and_sweep().await;
    site.verify();
}

/// A whole server stands still past its lease; another takes its job over; then it wakes up.
#[tokio::test]
async fn a_server_that_comes_back_after_its_lease_changes_nothing() {
    let mut site = Site::start().await;
    let id = site.submit("taken over").await;
    site.until_running(&id).await;
    let frozen = site.freeze();
    site.ensure_running().await;
    let done = site.finish(&id).await;
    assert_eq!(done["status"], "succeeded", "{done}");
    assert!(done["attempt"].as_u64() > Some(1), "another attempt finished it: {done}");
    let path = format!("/v1/jobs/{id}/events");
    let (events, hash) = (site.get(&path).await, site.sha256(&id, "model.safetensors").await);
    frozen.thaw();
    site.until("the stale child is stopped", async |_| (frozen.children() == 0).then_some(())).await;
    assert_eq!(site.get(&path).await, events, "it wrote no event");
    assert_eq!(site.get(&format!("/v1/jobs/{id}")).await, done, "it changed no row");
    assert_eq!(site.sha256(&id, "model.safetensors").await, hash);
    frozen.terminate();
    site.stop_and_sweep().await;
    site.verify();
}

#[tokio::test]
async fn a_model_that_is_cut_while_it_is_read_fails_its_job_alone() {
    let mut site = Site::at_rest(&["--lease", "2s"]);
    let model = site.data().join("models/cut");
    fs::create_dir_all(&model).unwrap();
    for file in fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), model.join(file.file_name())).unwrap();
    }
    site.set("GRASPD_MODELS_DIR", site.data().join("models").to_str().unwrap());
    site.ensure_running().await;
    let server = site.process();
    let cut = serde_json::json!({"model": "file:cut"});
    let cut = merged(job(), &cut);
    let id = site.until("a submission", async |site| site.try_submit("cut", &cut).await).await;
    site.until_running(&id).await;
    fs::OpenOptions::new().write(true).open(model.join("model.safetensors")).unwrap().set_len(1000).unwrap();
    let done = site.finish(&id).await;
    let code = done["error"]["code"].as_str();
    assert!(done["status"] == "succeeded" || matches!(code, Some("invalid_model")), "{done}");
    // Whoever comes now finds it cut.
    let id = site.until("a submission", async |site| site.try_submit("cut again", &cut).await).await;
    assert_eq!(site.finish(&id).await["status"], "failed");
    assert_eq!(site.process(), server);
}

fn merged(mut job: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        job[name] = value.clone();
    }
    job
}

/// What a process has of memory that no file stands behind.
fn anonymous_bytes(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// A memory cgroup of version 1 or 2, or `None` where this user may make none.
struct Cgroup {
    folder: PathBuf,
    limit: PathBuf,
}

impl Cgroup {
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("graspd-test-{}", std::process::id());
        let limits = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        limits.iter().find_map(|(root, limit)| {
            let folder = PathBuf::from(root).join(&name);
            let group = Self { limit: folder.join(limit), folder };
            fs::create_dir(&group.folder).ok()?;
            fs::write(&group.limit, bytes.to_string()).ok().map(|()| group)
        })
    }

    fn lift(&self) {
        fs::write(&self.limit, (1_u64 << 40).to_string()).unwrap();
    }

    fn take(&self, pid: Pid) {
        fs::write(self.folder.join("cgroup.procs"), pid.as_raw_nonzero().to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Empty once its processes are gone, which takes the kernel a moment.
        for _ in 0..100 {
            if fs::remove_dir(&self.folder).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The kernel ends the child, which said that it would rather be the one, and the server tells why.
#[tokio::test]
#[expect(clippy::print_stderr, reason = "a test that cannot run says so")]
async fn a_child_that_eats_all_memory_is_ended_and_the_server_lives() {
    let mut site = Site::at_rest(&["--lease", "2s"]);
    site.ensure_running().await;
    let server = site.process();
    // Room for the server as it is, and for less than a child needs.
    let Some(group) = Cgroup::new(anonymous_bytes(server) + (8 << 20)) else {
        eprintln!("SKIPPED: this user may make no memory cgroup");
        return;
    };
    group.take(server);
    let id = site.submit("hungry").await;
    let done = site.finish_without_resume(&id).await;
    assert_eq!((&done["status"], &done["error"]["code"]), (&"failed".into(), &"worker_crashed".into()), "{done}");
    assert!(done["error"]["message"].as_str().unwrap().contains("signal 9"), "{done}");
    assert_eq!(site.process(), server);
    group.lift();
    let small = site.submit("small").await;
    assert_eq!(site.finish(&small).await["status"], "succeeded", "another job goes on");
}
