//! Claims, leases and the fence.

use std::collections::HashSet;

use graspd::{
    job::{Progress, Stage, Status},
    queue::{Beat, Change, Outcome},
};

use crate::{Kind, LEASE, SHORT_LEASE, Subject, spec};

async fn a_job_goes_from_queued_through_running_to_succeeded(kind: Kind) {
    let subject = Subject::new(kind).await;
    let queued = subject.submit().await;
    assert_eq!((queued.status, queued.attempt, queued.started_at), (Status::Queued, 0, None));
    assert_eq!(queued.spec, spec());

    let claim = subject.claim(LEASE).await;
    assert_eq!((claim.id, claim.attempt, &claim.spec), (queued.id, 1, &queued.spec));
    let progress = Progress { layer: Some(3), ..Progress::new(Stage::Gradients, 4, 32) };
    assert_eq!(subject.store.beat(&claim, Some(&progress), LEASE).await.unwrap(), Beat::Owned);
    assert_eq!(subject.store.beat(&claim, None, LEASE).await.unwrap(), Beat::Owned);
    let running = subject.record(&claim).await;
    assert_eq!((running.status, running.progress), (Status::Running, Some(progress.clone())));
    assert!(running.started_at >= Some(queued.created_at));

    assert!(subject.store.settle(&claim, &Outcome::Succeeded).await.unwrap());
    let over = subject.record(&claim).await;
    assert_eq!((over.status, over.progress, over.error), (Status::Succeeded, Some(progress), None));
    assert!(over.finished_at >= over.started_at);
    assert_eq!(subject.store.claim("worker", LEASE).await.unwrap(), None);
}

async fn the_oldest_job_is_claimed_first(kind: Kind) {
    let subject = Subject::new(kind).await;
    let submitted = [subject.submit().await.id, subject.submit().await.id, subject.submit().await.id];
    for id in submitted {
        assert_eq!(subject.claim(LEASE).await.id, id);
    }
}

async fn sixty_four_claims_at_once_give_one_owner(kind: Kind) {
    let subject = Subject::new(kind).await;
    subject.submit().await;
    let mut claims = tokio::task::JoinSet::new();
    for worker in 0..64 {
        let store = subject.store.clone();
        claims.spawn(async move { store.claim(&format!("worker {worker}"), LEASE).await.unwrap() });
    }
    let owners: Vec<_> = claims.join_all().await.into_iter().flatten().collect();
    assert_eq!(owners.len(), 1);
    assert_eq!(owners[0].attempt, 1);
}

async fn many_jobs_and_many_workers_never_share_one(kind: Kind) {
    let subject = Subject::new(kind).await;
    for _ in 0..16 {
        subject.submit().await;
    }
    let mut claims = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let store = subject.store.clone();
        claims.spawn(async move { store.claim("worker", LEASE).await.unwrap() });
    }
    let owned: Vec<_> = claims.join_all().await.into_iter().flatten().map(|claim| claim.id).collect();
    assert_eq!(owned.len(), 16);
    assert_eq!(owned.iter().collect::<HashSet<_>>().len(), 16);
}

async fn a_job_whose_lease_lapsed_is_claimed_again(kind: Kind) {
    let subject = Subject::new(kind).await;
    let queued = subject.submit().await;
    let first = subject.claim(SHORT_LEASE).await;
    let started = subject.record(&first).await.started_at;
    let second = subject.claim(LEASE).await;
    assert_eq!((second.id, second.attempt), (queued.id, 2));
    assert_eq!(subject.record(&second).await.started_at, started, "started_at is that of the first claim");
}

async fn a_stale_attempt_changes_nothing(kind: Kind) {
    let subject = Subject::new(kind).await;
    subject.submit().await;
    let stale = subject.claim(SHORT_LEASE).await;
    let owner = subject.claim(LEASE).await;
    let before = subject.record(&owner).await;

    let progress = Progress::new(Stage::Export, 1, 1);
    assert_eq!(subject.store.beat(&stale, Some(&progress), LEASE).await.unwrap(), Beat::Lost);
    assert_eq!(subject.store.step_finished(&stale).await.unwrap(), Beat::Lost);
    for outcome in [Outcome::Succeeded, Outcome::Cancelled, Outcome::Released, Outcome::Crashed(crate::crash())] {
        assert!(!subject.store.settle(&stale, &outcome).await.unwrap(), "{outcome:?}");
    }
    assert_eq!(subject.record(&owner).await, before);
    assert_eq!(subject.store.beat(&owner, None, LEASE).await.unwrap(), Beat::Owned);
}

async fn a_beat_keeps_a_job_from_being_claimed_again(kind: Kind) {
    let subject = Subject::new(kind).await;
    subject.submit().await;
    let claim = subject.claim(SHORT_LEASE).await;
    assert_eq!(subject.store.beat(&claim, None, LEASE).await.unwrap(), Beat::Owned);
    assert_eq!(subject.store.claim("another", LEASE).await.unwrap(), None);
}

async fn an_attempt_that_is_over_cannot_end_again(kind: Kind) {
    let subject = Subject::new(kind).await;
    let claim = subject.running().await;
    assert!(subject.store.settle(&claim, &Outcome::Succeeded).await.unwrap());
    assert!(!subject.store.settle(&claim, &Outcome::Released).await.unwrap());
    assert_eq!(subject.store.beat(&claim, None, LEASE).await.unwrap(), Beat::Lost);
    assert_eq!(subject.record(&claim).await.status, Status::Succeeded);
}

async fn a_cancelled_job_whose_lease_lapsed_is_not_run_again(kind: Kind) {
    let subject = Subject::new(kind).await;
    subject.submit().await;
    let claim = subject.claim(LEASE).await;
    assert!(matches!(subject.store.cancel(claim.id).await.unwrap(), Change::Accepted(_)));
    assert_eq!(subject.store.beat(&claim, None, SHORT_LEASE).await.unwrap(), Beat::CancelRequested);
    while subject.record(&claim).await.status == Status::Running {
        assert_eq!(subject.store.claim("another", LEASE).await.unwrap(), None);
    }
    let record = subject.record(&claim).await;
    assert_eq!((record.status, record.cancel_requested, record.attempt), (Status::Cancelled, false, 1));
    assert!(record.finished_at.is_some());
}

async fn everything_survives_reopening(kind: Kind) {
    let mut subject = Subject::new(kind).await;
    let claim = subject.running().await;
    let waiting = subject.submit().await;
    let before = subject.record(&claim).await;
    subject.reopen().await;
    assert_eq!(subject.record(&claim).await, before);
    assert_eq!(subject.store.beat(&claim, None, LEASE).await.unwrap(), Beat::Owned);
    assert_eq!(subject.claim(LEASE).await.id, waiting.id);
}

on_every_store![
    a_job_goes_from_queued_through_running_to_succeeded,
    the_oldest_job_is_claimed_first,
    sixty_four_claims_at_once_give_one_owner,
    many_jobs_and_many_workers_never_share_one,
    a_job_whose_lease_lapsed_is_claimed_again,
    a_stale_attempt_changes_nothing,
    a_beat_keeps_a_job_from_being_claimed_again,
    an_attempt_that_is_over_cannot_end_again,
    a_cancelled_job_whose_lease_lapsed_is_not_run_again,
    everything_survives_reopening,
];
