//! How attempts end: crashes, retries and cancels.

use graspd::{
    clock::{Ids, RandomIds},
    job::{Failure, FailureCode, Status},
    queue::{Beat, Change, Outcome},
};

use crate::{Kind, LEASE, SHORT_LEASE, Subject, crash};

async fn three_crashes_in_a_row_fail_a_job(kind: Kind) {
    let subject = Subject::new(kind).await;
    subject.submit().await;
    for attempt in 1..=3 {
        let claim = subject.claim(LEASE).await;
        assert_eq!(claim.attempt, attempt);
        assert!(subject.store.settle(&claim, &Outcome::Crashed(crash())).await.unwrap());
        let expected = if attempt < 3 { Status::Queued } else { Status::Failed };
        assert_eq!(subject.record(&claim).await.status, expected);
        if attempt == 3 {
            let error = subject.record(&claim).await.error.unwrap();
            assert_eq!((error.code, error.message), (FailureCode::WorkerCrashed, crash().message));
        }
    }
}

async fn a_finished_step_starts_the_count_of_crashes_again(kind: Kind) {
    let subject = Subject::new(kind).await;
    subject.submit().await;
    for _ in 0..6 {
        let claim = subject.claim(LEASE).await;
        assert_eq!(subject.store.step_finished(&claim).await.unwrap(), Beat::Owned);
        subject.store.settle(&claim, &Outcome::Crashed(crash())).await.unwrap();
        assert_eq!(subject.record(&claim).await.status, Status::Queued);
    }
}

async fn a_dead_server_is_no_crash(kind: Kind) {
    let subject = Subject::new(kind).await;
    subject.submit().await;
    for _ in 0..5 {
        subject.claim(SHORT_LEASE).await;
    }
    let claim = subject.claim(LEASE).await;
    subject.store.settle(&claim, &Outcome::Crashed(crash())).await.unwrap();
    assert_eq!(subject.record(&claim).await.status, Status::Queued);
}

async fn a_released_job_waits_again_and_nothing_is_counted(kind: Kind) {
    let subject = Subject::new(kind).await;
    subject.submit().await;
    for _ in 0..5 {
        let claim = subject.claim(LEASE).await;
        assert!(subject.store.settle(&claim, &Outcome::Released).await.unwrap());
        let record = subject.record(&claim).await;
        assert_eq!((record.status, record.error), (Status::Queued, None));
    }
}

async fn a_failure_that_may_pass_is_tried_four_times_in_all(kind: Kind) {
    let subject = Subject::new(kind).await;
    subject.submit().await;
    let failure = Failure::retry(FailureCode::HubUnavailable, "the hub answered 503");
    for attempt in 1..=4 {
        let claim = subject.claim(LEASE).await;
        subject.store.settle(&claim, &Outcome::Failed(failure.clone())).await.unwrap();
        let record = subject.record(&claim).await;
        let expected = if attempt < 4 { Status::Queued } else { Status::Failed };
        assert_eq!((record.attempt, record.status), (attempt, expected));
    }
    let jobs = subject.store.counts().await.unwrap();
    assert!(jobs.contains(&(Status::Failed, 1)), "{jobs:?}");
}

async fn a_failure_for_good_fails_the_job_at_once(kind: Kind) {
    let subject = Subject::new(kind).await;
    let claim = subject.running().await;
    let failure = Failure::give_up(FailureCode::InvalidModel, "model.safetensors: the header is truncated");
    subject.store.settle(&claim, &Outcome::Failed(failure)).await.unwrap();
    let record = subject.record(&claim).await;
    let error = record.error.unwrap();
    assert_eq!((record.status, error.code), (Status::Failed, FailureCode::InvalidModel));
    assert_eq!(error.message, "model.safetensors: the header is truncated");
}

async fn a_queued_job_is_cancelled_at_once(kind: Kind) {
    let subject = Subject::new(kind).await;
    let id = subject.submit().await.id;
    let Change::Accepted(record) = subject.store.cancel(id).await.unwrap() else { panic!("not accepted") };
    assert_eq!((record.status, record.cancel_requested), (Status::Cancelled, false));
    assert_eq!(subject.store.claim("worker", LEASE).await.unwrap(), None);
    assert!(matches!(subject.store.cancel(id).await.unwrap(), Change::AlreadyOver(_)));
}

async fn a_running_job_is_asked_to_stop_and_may_be_asked_twice(kind: Kind) {
    let subject = Subject::new(kind).await;
    let claim = subject.running().await;
    for _ in 0..2 {
        let Change::Accepted(record) = subject.store.cancel(claim.id).await.unwrap() else { panic!("not accepted") };
        assert_eq!((record.status, record.cancel_requested), (Status::Running, true));
    }
    assert_eq!(subject.store.beat(&claim, None, LEASE).await.unwrap(), Beat::CancelRequested);
    assert_eq!(subject.store.step_finished(&claim).await.unwrap(), Beat::CancelRequested);
    assert!(subject.store.settle(&claim, &Outcome::Cancelled).await.unwrap());
    let record = subject.record(&claim).await;
    assert_eq!((record.status, record.cancel_requested), (Status::Cancelled, false));
}

async fn a_success_stands_although_a_cancel_was_asked_for(kind: Kind) {
    let subject = Subject::new(kind).await;
    let claim = subject.running().await;
    subject.store.cancel(claim.id).await.unwrap();
    assert!(subject.store.settle(&claim, &Outcome::Succeeded).await.unwrap());
    assert_eq!(subject.record(&claim).await.status, Status::Succeeded);
}

async fn a_cancelled_job_that_comes_back_is_not_queued_again(kind: Kind) {
    let retry = Failure::retry(FailureCode::DiskFull, "no room");
    let give_up = Failure::give_up(FailureCode::InvalidModel, "no");
    for outcome in
        [Outcome::Released, Outcome::Crashed(crash()), Outcome::Failed(retry.clone()), Outcome::Failed(give_up)]
    {
        let subject = Subject::new(kind).await;
        let claim = subject.running().await;
        subject.store.cancel(claim.id).await.unwrap();
        assert!(subject.store.settle(&claim, &outcome).await.unwrap());
        let record = subject.record(&claim).await;
        assert_eq!((record.status, record.error), (Status::Cancelled, None), "{outcome:?}");
    }
}

async fn an_unknown_job_is_unknown(kind: Kind) {
    let subject = Subject::new(kind).await;
    let id = RandomIds.job_id();
    assert_eq!(subject.store.get(id).await.unwrap(), None);
    assert_eq!(subject.store.cancel(id).await.unwrap(), Change::Unknown);
}

on_every_store![
    three_crashes_in_a_row_fail_a_job,
    a_finished_step_starts_the_count_of_crashes_again,
    a_dead_server_is_no_crash,
    a_released_job_waits_again_and_nothing_is_counted,
    a_failure_that_may_pass_is_tried_four_times_in_all,
    a_failure_for_good_fails_the_job_at_once,
    a_queued_job_is_cancelled_at_once,
    a_running_job_is_asked_to_stop_and_may_be_asked_twice,
    a_success_stands_although_a_cancel_was_asked_for,
    a_cancelled_job_that_comes_back_is_not_queued_again,
    an_unknown_job_is_unknown,
];
