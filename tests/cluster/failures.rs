//! SIGKILL of any process, the database's server among them, over a queue of short real jobs.

#![expect(clippy::print_stdout, reason = "the long form runs for minutes")]

use std::{collections::BTreeSet, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::site::Site;

/// Kills of the short form.
const KILLS: u64 = 6;
/// Of so many kills, one is the database's.
const DATABASE: u64 = 5;
/// Jobs that wait or run, at least, while there is killing.
const AT_WORK: usize = 3;

#[expect(clippy::disallowed_methods, reason = "the settings are those of the test, not of the program")]
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

#[tokio::test]
async fn nothing_accepted_is_lost_and_nothing_is_left_over() {
    let seed = setting("GRASPD_TEST_SEED", std::process::id().into());
    let kills = setting("GRASPD_TEST_CLUSTER_KILLS", KILLS);
    let mut random = StdRng::seed_from_u64(seed);
    let Some(mut site) = Site::start(2, 2).await else { return };
    let mut accepted: Vec<String> = Vec::new();
    for kill in 0..kills {
        while unfinished(&site, &accepted).await < AT_WORK {
            // The reply to an earlier try may have died with a server: the key makes them one.
            accepted.push(site.submit(&format!("job {}", accepted.len()), 2, 32).await);
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..1_500))).await;
        if kill % DATABASE == DATABASE - 1 {
            site.postgres.kill();
            tokio::time::sleep(Duration::from_millis(random.random_range(0..500))).await;
            site.postgres.start_again();
        } else {
            site.kill(random.random_range(0..site.machines()));
        }
        println!("kill {kill} of {kills}, seed {seed}, {} jobs", accepted.len());
        site.ensure_running();
    }
    let mut hashes = BTreeSet::new();
    for id in &accepted {
        let job = site.finish(id).await;
        assert_eq!(job["status"], "succeeded", "seed {seed}: {job}");
        let content = site.download(id, "model.safetensors").await;
        hashes.insert(Sha256::digest(content).to_vec());
    }
    assert_eq!(hashes.len(), 1, "the same job gives the same bytes, however often it was interrupted: seed {seed}");
    let jobs: Value = site.get("/v1/jobs?limit=100").await;
    assert_eq!(jobs["data"].as_array().unwrap().len(), accepted.len().min(100), "seed {seed}: a job was doubled");
    nothing_is_left_over(&mut site, accepted.len()).await;
}

async fn unfinished(site: &Site, ids: &[String]) -> usize {
    let mut count = 0;
    for id in ids.iter().rev().take(8) {
        count += usize::from(matches!(site.job(id).await["status"].as_str(), Some("queued" | "running")));
    }
    count
}

/// Every object of a job is of the one attempt that published, and no checkpoint is there any more.
async fn nothing_is_left_over(site: &mut Site, jobs: usize) {
    // The sweep runs when an API process starts.
    site.stop().await;
    site.ensure_running();
    site.until("the sweep", async |site| {
        let objects = site.objects().await;
        let attempts: BTreeSet<_> = objects.iter().filter_map(|key| attempt_of(key)).collect();
        let checkpoints = objects.iter().filter(|key| key.starts_with("checkpoints/")).count();
        (attempts.len() == jobs && checkpoints == 0).then_some(())
    })
    .await;
    site.stop().await;
    let (code, said) = site.tool(&["verify"]);
    assert!(code == 0 && said.contains("all is well"), "{said}");
}

/// The job and the attempt of a published object.
fn attempt_of(key: &str) -> Option<(String, String)> {
    let mut parts = key.strip_prefix("jobs/")?.split('/');
    Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
}

/// Whether an object lists a whole checkpoint: `checkpoints/<job>/<attempt>/<number>.json`.
fn is_list(key: &str) -> bool {
    let name = key.strip_prefix("checkpoints/").and_then(|rest| rest.split('/').nth(2));
    name.and_then(|name| name.strip_suffix(".json")).is_some()
}

#[tokio::test]
async fn a_worker_elsewhere_goes_on_from_the_checkpoint_of_one_that_is_gone() {
    let Some(mut site) = Site::start(1, 1).await else { return };
    let id = site.submit("only", 100, 64).await;
    site.until("a checkpoint", async |site| site.objects().await.iter().any(|key| is_list(key)).then_some(())).await;
    site.lose(1);
    let elsewhere = site.add_worker();
    site.ensure_running();
    let job = site.finish(&id).await;
    assert_eq!((&job["status"], &job["attempt"]), (&"succeeded".into(), &2.into()), "{job}");
    let log = site.log(elsewhere);
    assert!(log.contains("goes on from the checkpoint of another machine"), "{log}");
    let path = format!("/v1/jobs/{id}/artifacts/model.safetensors?redirect=1");
    let there = site.ask(reqwest::Method::GET, &path, None, None).await.unwrap();
    assert!(there.url().path().starts_with("/graspd/site/jobs/"), "sent to the object store: {}", there.url());
    assert_eq!(there.bytes().await.unwrap(), site.download(&id, "model.safetensors").await);
    let text = site.ask(reqwest::Method::GET, &format!("/v1/jobs/{id}/logs"), None, None).await.unwrap();
    assert!(!text.text().await.unwrap().is_empty(), "the log of both machines");
    site.stop().await;
    let (code, said) = site.tool(&["verify"]);
    assert!(code == 0 && said.contains("all is well"), "{said}");
}
