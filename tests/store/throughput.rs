//! How many jobs a second can be submitted, claimed and ended, and beaten for, by eight workers with connections of their
//! own; no job twice. It asserts nothing about time. The figures of the README:
//! `GRASPD_TEST_QUEUED=100000 GRASPD_TEST_FSYNC=on cargo test --release --test store throughput -- --nocapture`,
//! with `GRASPD_TEST_RUNNING=1000` among so many jobs that run.

#![expect(clippy::print_stdout, reason = "the figures are for people")]

use std::{collections::HashSet, sync::Arc, time::Instant};

use graspd::{
    clock::{Ids, RandomIds},
    job::{Progress, Stage},
    queue::{Beat, Outcome, Store},
};
use tokio::task::JoinSet;

use crate::{Kind, LEASE, Subject, setting, spec};

const WORKERS: usize = 8;
/// Jobs of the short form.
const QUEUED: u64 = 400;
/// Beats of each worker for one job.
const BEATS: u64 = 20;

async fn everything_queued_is_claimed_once(kind: Kind) {
    let subject = Subject::new(kind).await;
    let mut stores = Vec::new();
    for _ in 0..WORKERS {
        stores.push(match kind {
            Kind::Sqlite => Arc::clone(&subject.store),
            Kind::Postgres(_) => Subject::open(&subject.location).await,
        });
    }
    let all = setting("GRASPD_TEST_QUEUED", QUEUED) as usize;
    let name = if matches!(kind, Kind::Sqlite) { "SQLite" } else { "PostgreSQL" };
    let begin = Instant::now();
    let submitting: JoinSet<()> = stores.iter().cloned().map(|store| submit(store, all / WORKERS)).collect();
    submitting.join_all().await;
    let submitted = rate(all, begin);
    for _ in 0..setting("GRASPD_TEST_RUNNING", 0) {
        subject.claim(LEASE * 60).await;
    }
    let begin = Instant::now();
    // A tenth stays, so that the last claim is made from a queue as well.
    let working: JoinSet<_> = stores.iter().cloned().map(|store| work(store, all / WORKERS * 9 / 10)).collect();
    let claimed: Vec<_> = working.join_all().await.into_iter().flatten().collect();
    let distinct = claimed.iter().collect::<HashSet<_>>().len();
    let turned = rate(claimed.len(), begin);
    let begin = Instant::now();
    let beating: JoinSet<_> = stores.iter().cloned().map(|store| beat(store, BEATS * all as u64 / QUEUED)).collect();
    let beats = beating.join_all().await.into_iter().sum();
    println!(
        "{name}, {WORKERS} workers, {all} jobs: {submitted:.0} submits/s, {turned:.0} claims/s, each with its end, \
         {:.0} beats/s with progress, {} double",
        rate(beats, begin),
        claimed.len() - distinct
    );
    assert_eq!(claimed.len(), distinct);
}

async fn submit(store: Arc<dyn Store>, count: usize) {
    let spec = spec();
    for _ in 0..count {
        store.submit(RandomIds.job_id(), &spec).await.unwrap();
    }
}

async fn work(store: Arc<dyn Store>, count: usize) -> Vec<graspd::job::JobId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let claim = store.claim("worker", LEASE).await.unwrap().expect("a job");
        assert!(store.settle(&claim, &Outcome::Succeeded).await.unwrap());
        ids.push(claim.id);
    }
    ids
}

async fn beat(store: Arc<dyn Store>, count: u64) -> usize {
    let claim = store.claim("worker", LEASE).await.unwrap().expect("a job");
    for done in 0..count {
        let progress = Progress::new(Stage::Gradients, done, count);
        assert_eq!(store.beat(&claim, Some(&progress), LEASE).await.unwrap(), Beat::Owned);
    }
    count as usize
}

fn rate(count: usize, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}

on_every_store![everything_queued_is_claimed_once];
