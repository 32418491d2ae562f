//! Events, pauses, keys against repetition, and deletion.

use std::collections::BTreeMap;

use graspd::{
    clock::{Ids, RandomIds},
    job::{EventKind, Failure, FailureCode, JobId, Progress, Stage, Status},
    queue::{Beat, Change, Deletion, Idempotency, Listing, Outcome, QueueLimits, Submission, Submitted},
};

use crate::{Kind, LEASE, SHORT_LEASE, Subject, crash, spec};

async fn kinds(subject: &Subject, id: JobId) -> Vec<EventKind> {
    let events = subject.store.events(id, 0, 1000).await.unwrap();
    let seqs: Vec<_> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>(), "without a gap or a duplicate");
    events.into_iter().map(|event| event.kind).collect()
}

async fn every_change_is_an_event_and_survives_reopening(kind: Kind) {
    use EventKind::{CancelRequested, Cancelled, Queued, Started};
    let mut subject = Subject::new(kind).await;
    let id = subject.submit().await.id;
    let claim = subject.claim(LEASE).await;
    subject.store.settle(&claim, &Outcome::Released).await.unwrap();
    subject.reopen().await;
    let claim = subject.claim(SHORT_LEASE).await;
    assert_eq!(claim.attempt, 2);
    let claim = subject.claim(LEASE).await;
    subject.store.cancel(id).await.unwrap();
    subject.store.cancel(id).await.unwrap();
    subject.reopen().await;
    subject.store.settle(&claim, &Outcome::Cancelled).await.unwrap();
    let expected = [Queued, Started, Queued, Started, Started, CancelRequested, Cancelled];
    assert_eq!(kinds(&subject, id).await, expected);
    let later = subject.store.events(id, 5, 1).await.unwrap();
    assert_eq!((later.len(), later[0].seq), (1, 6));
}

async fn progress_is_thinned_to_what_a_reader_would_miss(kind: Kind) {
    let subject = Subject::new(kind).await;
    let claim = subject.running().await;
    for done in 0..=1000 {
        subject.store.beat(&claim, Some(&Progress::new(Stage::Influence, done, 1000)), LEASE).await.unwrap();
    }
    for layer in [7, 7, 6] {
        let progress = Progress { layer: Some(layer), ..Progress::new(Stage::Gradients, 0, 10) };
        subject.store.beat(&claim, Some(&progress), LEASE).await.unwrap();
    }
    let progress = kinds(&subject, claim.id).await.into_iter().filter(|kind| *kind == EventKind::Progress).count();
    assert_eq!(progress, 21 + 2, "each twentieth with both ends, and each layer");
}

async fn a_stale_attempt_leaves_no_event(kind: Kind) {
    let subject = Subject::new(kind).await;
    subject.submit().await;
    let stale = subject.claim(SHORT_LEASE).await;
    let owner = subject.claim(LEASE).await;
    let before = kinds(&subject, owner.id).await;
    subject.store.beat(&stale, Some(&Progress::new(Stage::Load, 0, 1)), LEASE).await.unwrap();
    subject.store.settle(&stale, &Outcome::Succeeded).await.unwrap();
    assert_eq!(kinds(&subject, owner.id).await, before);
}

async fn a_running_job_pauses_when_its_worker_stops(kind: Kind) {
    let subject = Subject::new(kind).await;
    let claim = subject.running().await;
    let Change::Accepted(record) = subject.store.pause(claim.id).await.unwrap() else { panic!("not accepted") };
    assert_eq!((record.status, record.pause_requested), (Status::Running, true));
    assert_eq!(subject.store.beat(&claim, None, LEASE).await.unwrap(), Beat::PauseRequested);
    assert!(subject.store.settle(&claim, &Outcome::Paused).await.unwrap());
    let record = subject.record(&claim).await;
    assert_eq!((record.status, record.pause_requested), (Status::Paused, false));
    assert_eq!(subject.store.claim("worker", LEASE).await.unwrap(), None);
    subject.store.resume(claim.id).await.unwrap();
    assert_eq!(subject.claim(LEASE).await.attempt, 2);
}

async fn a_job_to_be_paused_whose_worker_died_is_paused(kind: Kind) {
    let subject = Subject::new(kind).await;
    let claim = subject.running().await;
    subject.store.pause(claim.id).await.unwrap();
    subject.store.settle(&claim, &Outcome::Crashed(crash())).await.unwrap();
    assert_eq!(subject.record(&claim).await.status, Status::Paused);
    subject.store.resume(claim.id).await.unwrap();
    let claim = subject.claim(LEASE).await;
    subject.store.pause(claim.id).await.unwrap();
    subject.store.beat(&claim, None, SHORT_LEASE).await.unwrap();
    while subject.record(&claim).await.status == Status::Running {
        assert_eq!(subject.store.claim("another", LEASE).await.unwrap(), None);
    }
    assert_eq!(subject.record(&claim).await.status, Status::Paused);
    let Change::Accepted(record) = subject.store.cancel(claim.id).await.unwrap() else { panic!("not accepted") };
    assert_eq!(record.status, Status::Cancelled);
}

async fn a_failed_job_starts_again_with_its_counts_at_nothing(kind: Kind) {
    let subject = Subject::new(kind).await;
    let claim = subject.running().await;
    let failure = Failure::give_up(FailureCode::DatasetNotFound, "no");
    subject.store.settle(&claim, &Outcome::Failed(failure)).await.unwrap();
    let Change::Accepted(record) = subject.store.resume(claim.id).await.unwrap() else { panic!("not accepted") };
    assert_eq!((record.status, record.error, record.finished_at), (Status::Queued, None, None));
    for _ in 0..2 {
        let claim = subject.claim(LEASE).await;
        subject.store.settle(&claim, &Outcome::Crashed(crash())).await.unwrap();
    }
    assert_eq!(subject.record(&claim).await.status, Status::Queued);
}

async fn only_a_job_that_has_ended_is_deleted(kind: Kind) {
    let subject = Subject::new(kind).await;
    let claim = subject.running().await;
    assert_eq!(subject.store.delete(claim.id).await.unwrap(), Deletion::Active(Status::Running));
    subject.store.settle(&claim, &Outcome::Succeeded).await.unwrap();
    assert_eq!(subject.store.ended().await.unwrap().len(), 1);
    assert_eq!(subject.store.delete(claim.id).await.unwrap(), Deletion::Deleted);
    assert_eq!(subject.store.delete(claim.id).await.unwrap(), Deletion::Unknown);
    assert_eq!(kinds(&subject, claim.id).await, []);
    assert_eq!(subject.store.get(claim.id).await.unwrap(), None);
}

async fn of_many_requests_with_one_key_one_makes_a_job(kind: Kind) {
    let subject = Subject::new(kind).await;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = subject.store.clone();
        asked.spawn(async move {
            let idempotency = Some(Idempotency { key: "k".into(), fingerprint: "f".into() });
            let submission = Submission { idempotency, ..Submission::new(RandomIds.job_id(), spec()) };
            store.enqueue(&submission).await.unwrap()
        });
    }
    let answers = asked.join_all().await;
    let made = answers.iter().filter(|answer| matches!(answer, Submitted::Accepted(_))).count();
    let replayed = answers.iter().filter(|answer| matches!(answer, Submitted::Replayed(_))).count();
    assert_eq!((made, replayed), (1, 7));
}

async fn limits_count_what_waits_by_tenant(kind: Kind) {
    let subject = Subject::new(kind).await;
    let limits = QueueLimits { service: 3, tenant: 2 };
    let submit = async |tenant: &str| {
        let submission = Submission { tenant: tenant.into(), limits, ..Submission::new(RandomIds.job_id(), spec()) };
        subject.store.enqueue(&submission).await.unwrap()
    };
    for _ in 0..2 {
        assert!(matches!(submit("one").await, Submitted::Accepted(_)));
    }
    assert_eq!(submit("one").await, Submitted::TenantFull);
    assert!(matches!(submit("two").await, Submitted::Accepted(_)));
    assert_eq!(submit("two").await, Submitted::ServiceFull);
    let listing = Listing { limit: 10, tenant: Some("two".into()), ..Listing::default() };
    assert_eq!(subject.store.list(&listing).await.unwrap().jobs.len(), 1);
    let metadata = BTreeMap::from([("run".to_owned(), "7".to_owned())]);
    let listing = Listing { limit: 10, metadata, ..Listing::default() };
    assert_eq!(subject.store.list(&listing).await.unwrap().jobs.len(), 3);
}

async fn who_waits_for_a_change_is_woken(kind: Kind) {
    let subject = Subject::new(kind).await;
    let mut changes = subject.store.changes();
    let id = subject.submit().await.id;
    changes.changed().await.unwrap();
    changes.borrow_and_update();
    subject.store.cancel(id).await.unwrap();
    changes.changed().await.unwrap();
}

on_every_store![
    every_change_is_an_event_and_survives_reopening,
    progress_is_thinned_to_what_a_reader_would_miss,
    a_stale_attempt_leaves_no_event,
    a_running_job_pauses_when_its_worker_stops,
    a_job_to_be_paused_whose_worker_died_is_paused,
    a_failed_job_starts_again_with_its_counts_at_nothing,
    only_a_job_that_has_ended_is_deleted,
    of_many_requests_with_one_key_one_makes_a_job,
    limits_count_what_waits_by_tenant,
    who_waits_for_a_change_is_woken,
];
