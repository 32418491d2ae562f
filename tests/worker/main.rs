//! Slots and their children: what reaches the store and the published folders, whatever the child does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod bench;
mod child;
mod watched;

use std::{sync::atomic::Ordering, time::Duration};

use bench::Bench;
use graspd::{
    job::{FailureCode, Progress, Stage, Status},
    queue::{Claim, JobStore, Outcome},
    worker::Retention,
};
use rustix::process::{Pid, test_kill_process};

#[tokio::test]
async fn a_job_that_shows_as_succeeded_is_published() {
    let mut bench = Bench::running(
        "grep -q file:any $work/spec.json || exit 9
         progress load 1; say step_finished; echo to the log >&2; finish",
    )
    .await;
    let id = bench.submit().await;
    let record = bench.until_over(id).await;
    assert!(bench.published(id).await.unwrap().contains(&"model".to_owned()));
    assert_eq!(record.status, Status::Succeeded);
    assert_eq!(record.progress.unwrap(), Progress::new(Stage::Publish, 1, 1));
    bench.stop().await;
    assert_eq!(bench.settled(), [Outcome::Succeeded]);
    assert_eq!(bench.log(id), "to the log\n");
    assert!(!bench.work(id).exists(), "the work of a finished job is removed");
}

#[tokio::test]
async fn three_deaths_in_a_row_end_a_job() {
    let mut bench = Bench::running("progress load 1; exit 7").await;
    let id = bench.submit().await;
    let record = bench.until_over(id).await;
    let error = record.error.unwrap();
    assert_eq!((record.status, record.attempt, error.code), (Status::Failed, 3, FailureCode::WorkerCrashed));
    assert!(error.message.contains("code 7"), "{}", error.message);
    bench.stop().await;
    assert!(bench.work(id).exists(), "a failed job can be resumed");
    assert_eq!(bench.published(id).await, None);
}

#[tokio::test]
async fn a_death_by_signal_is_named() {
    let bench = Bench::running("kill -SEGV $$").await;
    let id = bench.submit().await;
    let error = bench.until_over(id).await.error.unwrap();
    assert!(error.message.contains("signal 11"), "{}", error.message);
}

#[tokio::test]
async fn a_job_that_gets_on_between_deaths_is_finished() {
    let bench = Bench::running(
        "echo attempt >> $work/steps
         say step_finished
         test $(wc -l < $work/steps) -ge 5 || exit 7
         finish",
    )
    .await;
    let id = bench.submit().await;
    let record = bench.until_over(id).await;
    assert_eq!((record.status, record.attempt), (Status::Succeeded, 5));
}

#[tokio::test]
async fn a_pause_lets_the_step_under_way_end_and_a_resume_goes_on_from_there() {
    let bench = Bench::running(
        "test -e $work/checkpoint && { finish; exit; }
         trap 'paused=1' USR1
         progress load 1
         while test -z \"$paused\"; do sleep 0.01; done
         echo kept > $work/checkpoint; say step_finished; say stopped",
    )
    .await;
    let id = bench.submit().await;
    bench.until_at_work(id).await;
    bench.store.pause(id).await.unwrap();
    let record = bench.until(id, |record| record.status == Status::Paused).await;
    assert_eq!((record.attempt, bench.settled()), (1, vec![Outcome::Paused]));
    bench.store.resume(id).await.unwrap();
    assert_eq!(bench.until_over(id).await.status, Status::Succeeded);
}

#[tokio::test]
async fn a_failed_job_keeps_its_work_and_goes_on_from_there() {
    let bench = Bench::running(
        r#"test -e $work/checkpoint && { finish; exit; }
           echo kept > $work/checkpoint; say step_finished
           printf '{"type":"failed","failure":{"code":"dataset_not_found","message":"no","decision":"give_up"}}\n'"#,
    )
    .await;
    let id = bench.submit().await;
    assert_eq!(bench.until_over(id).await.status, Status::Failed);
    bench.store.resume(id).await.unwrap();
    let record = bench.until(id, |record| record.status == Status::Succeeded).await;
    assert_eq!((record.attempt, record.error), (2, None));
}

#[tokio::test]
async fn jobs_beyond_the_retention_are_deleted_with_their_files() {
    let mut bench = Bench::new("finish").await;
    bench.start();
    let id = bench.submit().await;
    bench.until_over(id).await;
    bench.stop().await;
    let mut bench = bench.again();
    bench.settings.retention = Retention { age: None, bytes: Some(1) };
    bench.start();
    while bench.store.get(id).await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bench.published(id).await, None);
    bench.stop().await;
}

#[tokio::test]
async fn a_checkpoint_that_a_waiting_job_needs_outlives_the_retention() {
    let mut bench = Bench::running("finish").await;
    let (needed, old) = (bench.submit().await, bench.submit().await);
    bench.until_over(old).await;
    bench.until_over(needed).await;
    bench.stop().await;
    let waiting = bench.submit_body(serde_json::json!({"model": format!("job:{needed}"), "kind": "evaluate"})).await;
    bench.store.pause(waiting).await.unwrap();
    let mut bench = bench.again();
    bench.settings.retention = Retention { age: None, bytes: Some(1) };
    bench.start();
    while bench.store.get(old).await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.stop().await;
    assert!(bench.published(needed).await.is_some());
}

#[tokio::test]
async fn a_cancel_ends_even_a_child_that_ignores_it() {
    let mut bench =
        Bench::running("trap '' TERM; echo $$ > $work/../pid; progress load 1; while :; do sleep 1; done").await;
    let id = bench.submit().await;
    bench.until_at_work(id).await;
    bench.store.cancel(id).await.unwrap();
    assert_eq!(bench.until_over(id).await.status, Status::Cancelled);
    assert!(!is_alive(&bench), "the child is gone before the job is settled");
    bench.stop().await;
    assert_eq!(bench.published(id).await, None);
}

#[tokio::test]
async fn an_attempt_that_lost_its_lease_writes_nothing() {
    let script = "echo $$ > $work/../pid; progress load 1; trap 'finish; exit' TERM; while :; do sleep 0.01; done";
    let mut bench = Bench::new(script).await;
    bench.settings.timing.lease = Duration::from_millis(300);
    bench.start();
    let id = bench.submit().await;
    bench.until_at_work(id).await;
    bench.store.cut.store(true, Ordering::SeqCst);
    let claim = claim_elsewhere(&bench).await;
    while is_alive(&bench) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.stop().await;
    assert_eq!(bench.settled(), []);
    assert_eq!(bench.published(id).await, None);
    assert_eq!((bench.record(id).await.status, claim.attempt), (Status::Running, 2));
    assert!(bench.work(id).exists(), "the work belongs to the next attempt");
}

#[tokio::test]
async fn a_server_that_stops_gives_its_job_back() {
    let mut bench = Bench::running(
        "trap 'echo kept > $work/checkpoint; say stopped; exit' TERM
         progress load 1
         while :; do sleep 0.01; done",
    )
    .await;
    let id = bench.submit().await;
    bench.until_at_work(id).await;
    bench.stop().await;
    assert_eq!(bench.record(id).await.status, Status::Queued);
    assert_eq!(bench.settled(), [Outcome::Released]);
    assert!(bench.work(id).join("checkpoint").exists());
}

#[tokio::test]
async fn a_child_stopped_by_somebody_else_is_not_counted() {
    let bench = Bench::running(
        "echo attempt >> $work/attempts
         test $(wc -l < $work/attempts) -ge 5 || { say stopped; exit; }
         finish",
    )
    .await;
    let id = bench.submit().await;
    assert_eq!(bench.until_over(id).await.status, Status::Succeeded);
}

#[tokio::test]
async fn a_child_without_progress_is_killed() {
    let mut bench =
        Bench::new("progress factorize 3; while :; do say heartbeat; progress factorize 3; sleep 0.01; done").await;
    bench.settings.timing.stall = Duration::from_millis(100);
    bench.start();
    let id = bench.submit().await;
    let error = bench.until_over(id).await.error.unwrap();
    assert_eq!(error.code, FailureCode::Stalled);
    assert!(error.message.contains("factorize"), "{}", error.message);
}

#[tokio::test]
async fn a_silent_child_is_killed() {
    let mut bench = Bench::new("exec sleep 60").await;
    bench.settings.timing.silence = Duration::from_millis(100);
    bench.start();
    let id = bench.submit().await;
    assert_eq!(bench.until_over(id).await.error.unwrap().code, FailureCode::Stalled);
}

#[tokio::test]
async fn garbage_on_the_pipe_is_ignored() {
    let bench = Bench::running(
        r#"echo hello; echo '{"type":"reboot"}'; head -c 300000 /dev/zero | tr '\0' x; echo; head -c 99 /dev/urandom; echo; finish"#,
    ).await;
    let id = bench.submit().await;
    assert_eq!(bench.until_over(id).await.status, Status::Succeeded);
}

#[tokio::test]
async fn a_failure_keeps_its_code_and_its_decision() {
    let bench = Bench::running(
        r#"printf '{"type":"failed","failure":{"code":"model_not_found","message":"no such model","decision":"give_up"}}\n'"#,
    ).await;
    let id = bench.submit().await;
    let record = bench.until_over(id).await;
    let error = record.error.unwrap();
    assert_eq!((record.attempt, error.code), (1, FailureCode::ModelNotFound));
    assert_eq!(error.message, "no such model");
}

#[tokio::test]
async fn a_full_disk_while_publishing_is_tried_again_and_named() {
    let bench = Bench::running("finish").await;
    bench.artifacts.full.store(true, Ordering::SeqCst);
    let id = bench.submit().await;
    let record = bench.until_over(id).await;
    assert_eq!((record.attempt, record.error.unwrap().code), (4, FailureCode::DiskFull));
}

#[tokio::test]
async fn a_program_that_cannot_be_started_fails_the_job() {
    let mut bench = Bench::new("").await;
    bench.settings.program = "/does/not/exist".into();
    bench.start();
    let id = bench.submit().await;
    assert_eq!(bench.until_over(id).await.error.unwrap().code, FailureCode::Internal);
}

#[tokio::test]
async fn a_child_gets_the_environment_it_should() {
    // Cargo and nextest both set CARGO_MANIFEST_DIR for tests.
    let mut bench = Bench::new("test -z \"$CARGO_MANIFEST_DIR\" && test \"$COLOUR\" = red && finish").await;
    bench.settings.environment.0 = vec![("CARGO_MANIFEST_DIR".into(), None), ("COLOUR".into(), Some("red".into()))];
    bench.start();
    let id = bench.submit().await;
    assert_eq!(bench.until_over(id).await.status, Status::Succeeded);
}

#[tokio::test]
async fn work_left_by_jobs_that_are_over_is_swept_up() {
    let mut bench = Bench::new("finish").await;
    let id = bench.submit().await;
    bench.start();
    bench.until_over(id).await;
    bench.stop().await;
    std::fs::create_dir_all(bench.work(id)).unwrap();
    let mut bench = bench.again();
    bench.start();
    while bench.work(id).exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.stop().await;
}

/// Whether the process that wrote its id beside the work folders still runs.
fn is_alive(bench: &Bench) -> bool {
    let text = std::fs::read_to_string(bench.settings.work_dir.join("pid")).unwrap();
    test_kill_process(Pid::from_raw(text.trim().parse().unwrap()).unwrap()).is_ok()
}

/// Claims the job as another server would, once its lease has lapsed.
async fn claim_elsewhere(bench: &Bench) -> Claim {
    loop {
        if let Some(claim) = bench.store.inner.claim("elsewhere", Duration::from_mins(1)).await.unwrap() {
            return claim;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
