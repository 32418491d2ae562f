//! A real server with real jobs, and what may happen to them: kills at any moment and at named places, stopped and
//! starved processes, full disks, damaged files, sockets that hold on. What was accepted is finished, once; what is
//! published is whole; whoever else asks is answered.
//!
//! Each has a long form: `GRASPD_TEST_KILLS=1000` (SIGKILLs), `GRASPD_TEST_FAULTS=20` (deaths at each named place; needs
//! `--features failpoints`), `GRASPD_TEST_DAMAGES=100` (damaged files), `GRASPD_TEST_MODELS=200` (bad models),
//! `GRASPD_TEST_QUEUED=100000` (jobs in the table at a restart), each before `cargo test --test survival`.
//! `GRASPD_TEST_SEED` repeats a run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "the long form runs for minutes")]

mod damage;
mod disk;
#[cfg(feature = "failpoints")]
mod faults;
mod frozen;
mod models;
#[path = "../servers/port.rs"]
mod port;
mod processes;
mod restart;
mod secrets;
mod site;
mod sockets;

use std::{collections::BTreeSet, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use site::Site;

/// Kills of the short form.
const KILLS: u64 = 8;
/// Jobs that wait or run, at least, while there is killing.
const AT_WORK: usize = 3;

#[expect(clippy::disallowed_methods, reason = "the settings are those of the test, not of the program")]
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

#[tokio::test]
async fn nothing_accepted_is_lost_whatever_is_killed() {
    let seed = setting("GRASPD_TEST_SEED", std::process::id().into());
    let kills = setting("GRASPD_TEST_KILLS", KILLS);
    let mut random = StdRng::seed_from_u64(seed);
    let mut site = Site::start().await;
    let mut accepted = Vec::new();
    for kill in 0..kills {
        while site.unfinished(&accepted).await < AT_WORK {
            // The reply to an earlier try may have died with the server: the key makes them one.
            accepted.push(site.submit(&format!("job {}", accepted.len())).await);
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..1_500))).await;
        match random.random_range(0..3) {
            0 => site.kill_child(),
            1 => site.kill_server(false),
            _ => site.kill_server(true),
        }
        println!("kill {kill} of {kills}, seed {seed}, {} jobs", accepted.len());
        site.ensure_running().await;
    }
    let mut hashes = BTreeSet::new();
    for id in &accepted {
        let job = site.finish(id).await;
        assert_eq!(job["status"], "succeeded", "seed {seed}: {job}");
        hashes.insert(site.sha256(id, "model.safetensors").await);
    }
    assert_eq!(hashes.len(), 1, "the same job gives the same bytes, however often it was interrupted: seed {seed}");
    let jobs: Value = site.get("/v1/jobs?limit=100").await;
    assert_eq!(jobs["data"].as_array().unwrap().len(), accepted.len().min(100), "seed {seed}: a job was doubled");
    site.stop_and_sweep().await;
    site.verify();
}

#[tokio::test]
async fn a_backup_of_a_busy_queue_is_whole() {
    let mut site = Site::start().await;
    let id = site.submit("busy").await;
    let (code, said) = site.tool(&["backup", "copy.db"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = site.tool(&["backup", "copy.db"]);
    assert!(code == 1 && said.contains("copy.db is there already"), "{said}");
    site.finish(&id).await;
    site.stop_and_sweep().await;
    site.verify();
    site.damage(&id, "model.safetensors");
    let (code, said) = site.tool(&["verify"]);
    assert!(code == 1 && said.contains("model.safetensors: has SHA-256"), "{said}");
    std::fs::create_dir(site.data().join("work/01890a5d-ac96-774b-bcce-b302099a8057")).unwrap();
    assert!(site.tool(&["verify"]).1.contains("work/01890a5d-ac96-774b-bcce-b302099a8057: belongs to no job"));
    // The copy knows the job as it stood: the restored service finishes it, and publishes under the same name.
    site.restore("copy.db");
    site.ensure_running().await;
    assert_eq!(site.finish(&id).await["status"], "succeeded");
}
