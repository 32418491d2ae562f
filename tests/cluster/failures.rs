//! SIGKILL of any process, the database's server among them, and partitions of any machine from either server, over a queue
//! of short real jobs.

#![expect(clippy::print_stdout, reason = "the long form runs for minutes")]

use std::{collections::BTreeSet, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{proxy::Fault, site::Site};

/// Kills of the short form.
const KILLS: u64 = 6;
/// Partitions of the short form.
const PARTITIONS: u64 = 6;
/// Of so many kills, one is the database's.
const DATABASE: u64 = 5;
/// Jobs that wait or run, at least, while there is killing.
const AT_WORK: usize = 3;

#[expect(clippy::disallowed_methods, reason = "the settings are those of the test, not of the program")]
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_accepted_is_lost_and_nothing_is_left_over() {
    let seed = setting("GRASPD_TEST_SEED", std::process::id().into());
    let kills = setting("GRASPD_TEST_CLUSTER_KILLS", KILLS);
    let partitions = setting("GRASPD_TEST_CLUSTER_PARTITIONS", PARTITIONS);
    let jobs = setting("GRASPD_TEST_CLUSTER_JOBS", 0) as usize;
    let mut random = StdRng::seed_from_u64(seed);
    let Some(mut site) = Site::start(2, 2).await else { return };
    let mut accepted: Vec<String> = Vec::new();
    let mut acts: Vec<_> = (0..kills).map(Act::Kill).chain((0..partitions).map(|_| Act::Partition)).collect();
    acts.shuffle(&mut random);
    for (number, act) in acts.iter().enumerate() {
        while unfinished(&site, &accepted).await < AT_WORK {
            // The reply to an earlier try may have died with a server: the key makes them one.
            accepted.push(site.submit(&format!("job {}", accepted.len()), 2, 32).await);
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..1_500))).await;
        match act {
            Act::Kill(kill) if kill % DATABASE == DATABASE - 1 => {
                site.postgres.kill();
                tokio::time::sleep(Duration::from_millis(random.random_range(0..500))).await;
                site.postgres.start_again();
            }
            Act::Kill(_) => site.kill(random.random_range(0..site.machines())),
            Act::Partition => partition(&site, &mut random).await,
        }
        println!("{act:?}, {number} of {}, seed {seed}, {} jobs", acts.len(), accepted.len());
        site.ensure_running();
    }
    while accepted.len() < jobs {
        accepted.push(site.submit(&format!("job {}", accepted.len()), 2, 32).await);
    }
    let mut hashes = BTreeSet::new();
    for id in &accepted {
        let job = site.finish(id).await;
        assert_eq!(job["status"], "succeeded", "seed {seed}: {job}");
        let content = site.download(id, "model.safetensors").await;
        hashes.insert(Sha256::digest(content).to_vec());
    }
    assert_eq!(hashes.len(), 1, "the same job gives the same bytes, however often it was interrupted: seed {seed}");
    assert_eq!(listed(&site).await, accepted.iter().cloned().collect(), "seed {seed}: a job was lost or doubled");
    nothing_is_left_over(&mut site, accepted.len()).await;
}

/// Every job there is.
async fn listed(site: &Site) -> BTreeSet<String> {
    let (mut found, mut after) = (BTreeSet::new(), String::new());
    loop {
        let page: Value = site.get(&format!("/v1/jobs?limit=100{after}")).await;
        let ids = page["data"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap());
        after = ids.clone().next_back().map(|id| format!("&after={id}")).unwrap_or_default();
        found.extend(ids.map(str::to_owned));
        if page["has_more"] == false {
            return found;
        }
    }
}

/// What happens to the site.
#[derive(Clone, Copy, Debug)]
enum Act {
    Kill(u64),
    Partition,
}

/// Lets a line of a machine fail for up to twice a lease, or the whole machine, if it has a network of its own.
async fn partition(site: &Site, random: &mut StdRng) {
    let machine = random.random_range(0..site.machines());
    let length = Duration::from_millis(random.random_range(100..4_000));
    if random.random_bool(0.3) && site.plug(machine, false) {
        println!("machine {machine} is unplugged for {length:?}");
        tokio::time::sleep(length).await;
        site.plug(machine, true);
        return;
    }
    let database = random.random_bool(0.5);
    let faults: &[Fault] = if database { &Fault::OF_A_DATABASE } else { &Fault::OF_A_STORE };
    let fault = faults[random.random_range(0..faults.len())];
    println!("machine {machine}, {}: {fault:?} for {length:?}", if database { "database" } else { "object store" });
    site.fail(machine, database, fault);
    tokio::time::sleep(length).await;
    site.fail(machine, database, Fault::None);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_elsewhere_goes_on_from_the_checkpoint_of_one_that_is_gone() {
    let Some(mut site) = Site::start(1, 1).await else { return };
    let id = site.submit("only", 100, 64).await;
    site.until("a checkpoint", async |site| site.objects().await.iter().any(|key| is_list(key)).then_some(())).await;
    site.lose(1);
    let elsewhere = site.add_worker().await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_every_line_is_survived() {
    let Some(mut site) = Site::start(1, 1).await else { return };
    let faults = Fault::OF_A_DATABASE.map(|fault| (true, fault)).into_iter();
    let mut accepted = Vec::new();
    for (database, fault) in faults.chain(Fault::OF_A_STORE.map(|fault| (false, fault))) {
        println!("{fault:?} of the {}", if database { "database" } else { "object store" });
        accepted.push((fault, site.submit(&format!("job {}", accepted.len()), 2, 32).await));
        for machine in 0..site.machines() {
            site.fail(machine, database, fault);
        }
        // Longer than a lease.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        for machine in 0..site.machines() {
            site.fail(machine, database, Fault::None);
        }
        site.ensure_running();
    }
    for (fault, id) in &accepted {
        let job = site.finish(id).await;
        assert_eq!(job["status"], "succeeded", "{fault:?}: {job}");
    }
    nothing_is_left_over(&mut site, accepted.len()).await;
}
