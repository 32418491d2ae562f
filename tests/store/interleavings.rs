//! Whatever order claims, beats, ends, lapses and users come in, no job is ever in a state that it must not be in.
//!
//! `GRASPD_TEST_INTERLEAVINGS=10000 cargo test --release --test store` is the long form.

use std::{collections::BTreeMap, path::Path, time::Duration};

use graspd::{
    job::{EventKind, Failure, FailureCode, JobId, Status},
    queue::{Beat, Claim, JobRecord, Outcome},
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use tempfile::TempDir;

use crate::{Kind, LEASE, Subject, crash};

/// Interleavings of the short form.
const INTERLEAVINGS: u64 = 40;
/// Jobs of one interleaving.
const JOBS: usize = 3;

/// One thing that somebody does. Numbers choose among the jobs or the claims there are.
#[derive(Clone, Debug)]
enum Act {
    Submit,
    /// By a worker whose lease holds, or lapses at once.
    Claim(bool),
    Beat(usize),
    Step(usize),
    Settle(usize, Outcome),
    Cancel(usize),
    Pause(usize),
    Resume(usize),
    Delete(usize),
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        3 => Just(Outcome::Succeeded),
        1 => Just(Outcome::Cancelled),
        1 => Just(Outcome::Paused),
        1 => Just(Outcome::Released),
        2 => Just(Outcome::Crashed(crash())),
        1 => Just(Outcome::Failed(Failure::retry(FailureCode::DiskFull, "full"))),
        1 => Just(Outcome::Failed(Failure::give_up(FailureCode::InvalidModel, "no model"))),
    ]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let which = 0..8_usize;
    let act = prop_oneof![
        2 => Just(Act::Submit),
        6 => any::<bool>().prop_map(Act::Claim),
        3 => which.clone().prop_map(Act::Beat),
        2 => which.clone().prop_map(Act::Step),
        5 => (which.clone(), outcomes()).prop_map(|(which, outcome)| Act::Settle(which, outcome)),
        2 => which.clone().prop_map(Act::Cancel),
        2 => which.clone().prop_map(Act::Pause),
        2 => which.clone().prop_map(Act::Resume),
        1 => which.prop_map(Act::Delete),
    ];
    proptest::collection::vec(act, 8..40)
}

/// What was seen so far.
#[derive(Default)]
struct Watch {
    records: BTreeMap<JobId, JobRecord>,
    claims: Vec<Claim>,
    successes: BTreeMap<JobId, u32>,
}

macro_rules! hold {
    ($condition:expr, $($said:tt)*) => {
        if !$condition {
            return Err(TestCaseError::fail(format!($($said)*)));
        }
    };
}

impl Watch {
    fn claim(&self, which: usize) -> Option<Claim> {
        (!self.claims.is_empty()).then(|| self.claims[self.claims.len() - 1 - which % self.claims.len()].clone())
    }

    fn job(&self, which: usize) -> Option<JobId> {
        self.records.keys().nth(which % self.records.len().max(1)).copied()
    }

    /// Whether the claim is the last of a job that runs.
    fn owns(&self, claim: &Claim) -> bool {
        let of = self.records.get(&claim.id);
        of.is_some_and(|record| record.attempt == claim.attempt && record.status == Status::Running)
    }

    async fn act(&mut self, subject: &Subject, act: &Act) -> Result<(), TestCaseError> {
        match act {
            Act::Submit if self.records.len() < JOBS => {
                let record = subject.submit().await;
                self.records.insert(record.id, record);
            }
            Act::Submit => {}
            Act::Claim(holds) => {
                let lease = if *holds { LEASE } else { Duration::ZERO };
                if let Some(claim) = subject.store.claim("worker", lease).await.unwrap() {
                    let before = &self.records[&claim.id];
                    hold!(claim.attempt == before.attempt + 1, "attempt {} after {}", claim.attempt, before.attempt);
                    hold!(!before.status.is_terminal(), "a job that is {} was claimed", before.status);
                    hold!(before.status != Status::Paused, "a paused job was claimed");
                    self.claims.push(claim);
                }
            }
            Act::Beat(which) | Act::Step(which) => {
                let Some(claim) = self.claim(*which) else { return Ok(()) };
                let beat = match act {
                    Act::Beat(_) => subject.store.beat(&claim, None, LEASE).await.unwrap(),
                    _ => subject.store.step_finished(&claim).await.unwrap(),
                };
                hold!((beat != Beat::Lost) == self.owns(&claim), "{beat:?} to {claim:?}");
            }
            Act::Settle(which, outcome) => {
                let Some(claim) = self.claim(*which) else { return Ok(()) };
                let settled = subject.store.settle(&claim, outcome).await.unwrap();
                hold!(settled == self.owns(&claim), "settled {settled}: {claim:?}");
                if settled && *outcome == Outcome::Succeeded {
                    *self.successes.entry(claim.id).or_default() += 1;
                }
            }
            Act::Cancel(which) | Act::Pause(which) | Act::Resume(which) | Act::Delete(which) => {
                let Some(id) = self.job(*which) else { return Ok(()) };
                match act {
                    Act::Cancel(_) => drop(subject.store.cancel(id).await.unwrap()),
                    Act::Pause(_) => drop(subject.store.pause(id).await.unwrap()),
                    Act::Resume(_) => drop(subject.store.resume(id).await.unwrap()),
                    _ => {
                        let over = self.records[&id].status.is_terminal();
                        subject.store.delete(id).await.unwrap();
                        let gone = subject.store.get(id).await.unwrap().is_none();
                        hold!(gone == over, "a job that is over is deleted, no other");
                        if gone {
                            self.records.remove(&id);
                        }
                    }
                }
            }
        }
        self.look(subject, act).await
    }

    /// Holds every record against what it was before.
    async fn look(&mut self, subject: &Subject, act: &Act) -> Result<(), TestCaseError> {
        for (id, before) in &mut self.records {
            let now = subject.store.get(*id).await.unwrap().unwrap();
            let what = format!("{act:?}: {} -> {}", before.status, now.status);
            hold!(now.attempt >= before.attempt, "{what}: the attempt went back");
            match before.status {
                Status::Succeeded | Status::Cancelled => hold!(now == *before, "{what}: what is over changed"),
                Status::Failed => hold!(now == *before || matches!(act, Act::Resume(_)), "{what}"),
                Status::Paused => {
                    let by_user = matches!(act, Act::Resume(_) | Act::Cancel(_));
                    hold!(now == *before || by_user, "{what}: a paused job moved by itself");
                }
                Status::Queued | Status::Running => {}
            }
            hold!(now.status.is_terminal() == now.finished_at.is_some(), "{what}: {now:?}");
            hold!((now.status == Status::Failed) == now.error.is_some(), "{what}: {now:?}");
            hold!(now.status == Status::Running || !now.cancel_requested, "{what}: a cancel hangs on");
            *before = now;
        }
        Ok(())
    }

    async fn conclude(&self, subject: &Subject) -> Result<(), TestCaseError> {
        for (id, record) in &self.records {
            let events = subject.store.events(*id, 0, 1000).await.unwrap();
            for (index, event) in events.iter().enumerate() {
                hold!(event.seq == index as u64 + 1, "a gap or a duplicate before {}", event.seq);
            }
            let started = events.iter().filter(|event| event.kind == EventKind::Started).count();
            hold!(started == record.attempt as usize, "{started} starts of {} attempts", record.attempt);
            let succeeded = events.iter().filter(|event| event.kind == EventKind::Succeeded).count();
            hold!(succeeded == usize::from(record.status == Status::Succeeded), "{succeeded} successes: {record:?}");
            hold!(self.successes.get(id).copied().unwrap_or(0) as usize == succeeded, "published more than once");
        }
        Ok(())
    }
}

fn explore(kind: Kind, cases: u64) {
    // One folder in memory, where there is one: what is asked here is not what the disk keeps.
    let memory = Path::new("/dev/shm");
    let folder = || if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cases = u32::try_from(cases).unwrap();
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let run = |acts: Vec<Act>| {
        runtime.block_on(async {
            let subject = Subject::in_folder(kind, folder().unwrap()).await;
            let mut watch = Watch::default();
            for act in &acts {
                watch.act(&subject, act).await?;
            }
            watch.conclude(&subject).await?;
            subject.store.close().await;
            Ok(())
        })
    };
    runner.run(&acts(), run).unwrap();
}

#[test]
fn no_interleaving_leads_to_an_illegal_state() {
    explore(Kind::Sqlite, crate::setting("GRASPD_TEST_INTERLEAVINGS", INTERLEAVINGS));
}

#[test]
fn no_interleaving_leads_to_an_illegal_state_on_postgres() {
    if let Some(kind) = Kind::postgres() {
        // Each makes a database of its own, which takes a server longer.
        explore(kind, crate::setting("GRASPD_TEST_INTERLEAVINGS", INTERLEAVINGS) / 10);
    }
}
