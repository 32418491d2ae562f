//! How long a crash lasts. `GRASPD_TEST_QUEUED=100000` before `cargo test --release --test survival at_once -- --nocapture`
//! prints it for so many jobs in the table.

use std::{fmt::Write, fs, time::Instant};

use serde_json::Value;

use crate::{setting, site::Site};

/// Jobs of the short form.
const QUEUED: u64 = 500;

#[tokio::test]
async fn after_a_kill_the_running_job_goes_on_at_once() {
    let queued = setting("GRASPD_TEST_QUEUED", QUEUED);
    let mut site = Site::at_rest(&["--no-worker"]);
    queue_copies(&mut site, queued).await;
    // The lease would hold for an hour: that nobody holds the lock on the data folder says that it is worth nothing.
    site.argue(&["--lease", "1h"]);
    site.ensure_running().await;
    let id = site
        .until("a job runs", async |site| {
            let jobs = site.get("/v1/jobs?status=running").await;
            jobs["data"][0]["id"].as_str().map(str::to_owned)
        })
        .await;
    site.until_running(&id).await;
    site.kill_server(true);
    let begin = Instant::now();
    site.ensure_running().await;
    let ready = begin.elapsed();
    let path = format!("/v1/jobs/{id}");
    site.until("the second attempt", async |site| {
        let job: Value = site.get(&path).await;
        (job["attempt"] == 2 && job["status"] != "queued").then_some(())
    })
    .await;
    println!("{queued} jobs: ready {ready:.1?} after SIGKILL, the job goes on after {:.1?}", begin.elapsed());
    assert_eq!(site.finish(&id).await["status"], "succeeded");
    site.terminate();
    site.verify();
}

/// Fills the queue with copies of one job, as `graspd import` takes them.
async fn queue_copies(site: &mut Site, count: u64) {
    site.ensure_running().await;
    let id = site.submit("copied").await;
    site.terminate();
    let (code, said) = site.tool(&["export", "one.jsonl"]);
    assert_eq!(code, 0, "{said}");
    let one = fs::read_to_string(site.folder().join("one.jsonl")).unwrap();
    let (head, rows) = one.split_once('\n').unwrap();
    let mut all = format!("{head}\n");
    for table in ["jobs", "events"] {
        let is_of = |line: &&str| line.starts_with(&format!(r#"{{"table":"{table}""#));
        let row = rows.lines().find(is_of).unwrap();
        for number in 0..count {
            writeln!(all, "{}", row.replace(&id, &format!("{}{number:012x}", &id[..24]))).unwrap();
        }
    }
    writeln!(all, r#"{{"table":"end","row":{}}}"#, 2 * count).unwrap();
    fs::write(site.folder().join("all.jsonl"), all).unwrap();
    fs::remove_file(site.data().join("graspd.db")).unwrap();
    let (code, said) = site.tool(&["import", "all.jsonl"]);
    assert_eq!(code, 0, "{said}");
}
