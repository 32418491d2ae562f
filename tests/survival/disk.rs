//! Disks that are full, and disks that fail.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use reqwest::Method;
use serde_json::Value;

use crate::site::{Site, job};

/// A small disk in memory; `None` where this user may mount nothing.
struct Disk(PathBuf);

impl Disk {
    #[expect(clippy::print_stderr, reason = "a test that cannot run says so")]
    fn mount(place: &Path, megabytes: u32) -> Option<Self> {
        fs::create_dir_all(place).unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(place).output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(place.to_owned()));
        }
        eprintln!("SKIPPED: this user may mount nothing");
        None
    }

    /// Takes every byte that is left.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filling");
        let block = vec![1; 1 << 12];
        let mut file = fs::File::create(&path).unwrap();
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The server is gone by now; a lazy unmount goes on when the last file is closed.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

async fn status(site: &Site, method: Method, path: &str) -> u16 {
    site.send(method, path, None, None).await.unwrap().status().as_u16()
}

/// New jobs are refused; everything that makes room or only reads goes on; with room there again, so do new jobs.
async fn a_full_disk_refuses_new_jobs_only(site: &mut Site, disk: &Disk) {
    site.ensure_running().await;
    let (done, _) = site.see_through("done", &job()).await;
    let (old, _) = site.see_through("old", &job()).await;
    let waiting = site.submit("running").await;
    site.until_running(&waiting).await;
    let queued = site.submit("queued").await;
    let filling = disk.fill();
    let refused = site.send(Method::POST, "/v1/jobs", Some("new"), Some(&job())).await.unwrap();
    assert_eq!(refused.status(), 507);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "disk_full");
    for path in ["/readyz", "/v1/jobs", &format!("/v1/jobs/{done}"), &format!("/v1/jobs/{done}/artifacts/report.json")]
    {
        assert_eq!(status(site, Method::GET, path).await, 200, "{path}");
    }
    let cancelled = status(site, Method::POST, &format!("/v1/jobs/{queued}/cancel")).await;
    assert!(matches!(cancelled, 200 | 202), "{cancelled}\n{}", site.log());
    assert_eq!(status(site, Method::DELETE, &format!("/v1/jobs/{old}")).await, 204, "{}", site.log());
    assert_eq!(status(site, Method::GET, &format!("/v1/jobs/{old}")).await, 404);
    fs::remove_file(filling).unwrap();
    let (new, job) = site.see_through("new", &job()).await;
    assert_eq!(job["status"], "succeeded", "{new} {job}");
    let running = site.finish(&waiting).await;
    // It may have met the full disk: then it was tried again, or says so.
    assert!(running["status"] == "succeeded" || running["error"]["code"] == "disk_full", "{running}");
    site.stop_and_sweep().await;
    site.verify();
}

#[tokio::test]
async fn a_full_disk_under_everything() {
    let mut site = Site::at_rest(&["--lease", "2s"]);
    let Some(disk) = Disk::mount(&site.data(), 64) else { return };
    a_full_disk_refuses_new_jobs_only(&mut site, &disk).await;
}

#[tokio::test]
async fn a_full_disk_under_the_database() {
    let mut site = Site::at_rest(&["--lease", "2s"]);
    let Some(disk) = Disk::mount(&site.data().join("queue"), 24) else { return };
    let database = site.data().join("queue/graspd.db");
    site.set("GRASPD_DATABASE_URL", &format!("sqlite:{}", database.display()));
    a_full_disk_refuses_new_jobs_only(&mut site, &disk).await;
}

/// From the twentieth on, every fsync of the server fails, as on a dying disk. The process ends by itself, and what it
/// has acknowledged is there after the next start.
#[tokio::test]
#[expect(clippy::print_stderr, reason = "a test that cannot run says so")]
async fn a_disk_that_cannot_keep_what_it_took_ends_the_process() {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("SKIPPED: there is no strace");
        return;
    }
    let mut site = Site::start().await;
    let mut acknowledged = vec![site.submit("before").await];
    let server = site.process().as_raw_nonzero().to_string();
    let inject = "inject=fsync,fdatasync:error=EIO:when=20+";
    let strace = ["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", inject, "-p", &server];
    let mut tracer = Command::new("strace").args(strace).spawn().unwrap();
    for number in 0..1000 {
        if let Some(id) = site.try_submit(&format!("job {number}"), &job()).await {
            acknowledged.push(id);
        } else if site.has_ended() {
            break;
        }
    }
    let _ = tracer.kill();
    let _ = tracer.wait();
    assert_eq!(site.exit_code(), Some(74), "{}", site.log());
    site.ensure_running().await;
    for id in &acknowledged {
        site.get(&format!("/v1/jobs/{id}")).await;
    }
}
