//! Which of several jobs is claimed next, and by whom.

use graspd::{
    clock::{Ids, RandomIds},
    job::{Failure, FailureCode, JobId, JobSpec, Status},
    queue::{Offer, Outcome, Submission},
};
use serde_json::{Value, json};

use crate::{Kind, LEASE, Subject};

const GIB: u64 = 1 << 30;

impl Subject {
    async fn submit_of(&self, tenant: &str, more: Value) -> JobId {
        let mut body = json!({"model": "file:tiny-llama"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let spec = JobSpec::parse(&body).unwrap();
        let id = RandomIds.job_id();
        self.store.enqueue(&Submission { tenant: tenant.to_owned(), ..Submission::new(id, spec) }).await.unwrap();
        id
    }

    async fn claimed_by(&self, memory: u64) -> Option<JobId> {
        self.store.claim_for(&offer(memory), LEASE).await.unwrap().map(|claim| claim.id)
    }
}

fn offer(memory: u64) -> Offer {
    Offer { worker: format!("with {memory}"), memory }
}

async fn the_highest_priority_is_claimed_first_and_the_oldest_of_it(kind: Kind) {
    let subject = Subject::new(kind).await;
    let mut submitted = Vec::new();
    for priority in [0, -100, 7, 7, 100] {
        submitted.push(subject.submit_of("one", json!({"priority": priority})).await);
    }
    for number in [4, 2, 3, 0, 1] {
        assert_eq!(subject.claim(LEASE).await.id, submitted[number]);
    }
}

async fn tenants_run_as_many_jobs_each_whatever_their_priorities(kind: Kind) {
    let subject = Subject::new(kind).await;
    let mut all = Vec::new();
    for tenant in ["many", "many", "many", "many", "few", "few", "last"] {
        all.push((
            tenant,
            subject.submit_of(tenant, json!({"priority": if tenant == "many" { 100 } else { 0 }})).await,
        ));
    }
    let mut order = Vec::new();
    while let Some(id) = subject.claimed_by(0).await {
        order.push(all.iter().find(|(_, of)| *of == id).unwrap().0);
    }
    assert_eq!(order, ["many", "few", "last", "many", "few", "many", "many"]);
}

async fn tenants_take_turns_on_a_single_slot(kind: Kind) {
    let subject = Subject::new(kind).await;
    let mut all = Vec::new();
    for tenant in ["many", "many", "many", "few", "few"] {
        all.push((tenant, subject.submit_of(tenant, json!({})).await));
    }
    let mut order = Vec::new();
    for _ in 0..5 {
        // So that no two begin at the same millisecond.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        let claim = subject.claim(LEASE).await;
        subject.store.settle(&claim, &Outcome::Succeeded).await.unwrap();
        order.push(all.iter().find(|(_, of)| *of == claim.id).unwrap().0);
    }
    assert_eq!(order, ["many", "few", "many", "few", "many"]);
}

async fn a_job_waits_for_a_slot_with_room_and_lets_others_pass(kind: Kind) {
    let subject = Subject::new(kind).await;
    let large = subject.submit_of("one", json!({"min_memory": "40GiB", "priority": 1})).await;
    let small = subject.submit_of("one", json!({})).await;
    assert_eq!(subject.claimed_by(8 * GIB).await, Some(small));
    assert_eq!(subject.claimed_by(8 * GIB).await, None);
    let seen = async || {
        let record = subject.store.get(large).await.unwrap().unwrap();
        (record.memory_needed, record.largest_slot)
    };
    assert_eq!(seen().await, (40 * GIB, None), "nobody is up");
    subject.store.announce(&offer(8 * GIB)).await.unwrap();
    subject.store.announce(&offer(80 * GIB)).await.unwrap();
    assert_eq!(seen().await, (40 * GIB, Some(80 * GIB)));
    subject.store.withdraw(&offer(80 * GIB).worker).await.unwrap();
    assert_eq!(seen().await, (40 * GIB, Some(8 * GIB)));
    assert_eq!(subject.claimed_by(40 * GIB).await, Some(large));
}

async fn a_job_that_turns_out_too_large_goes_to_a_slot_that_has_room(kind: Kind) {
    let subject = Subject::new(kind).await;
    let id = subject.submit_of("one", json!({})).await;
    let too_large = |bytes| Outcome::Failed(Failure::give_up(FailureCode::OutOfMemory, "too large").needing(bytes));
    subject.store.announce(&offer(8 * GIB)).await.unwrap();
    subject.store.announce(&offer(40 * GIB)).await.unwrap();
    let claim = subject.store.claim_for(&offer(8 * GIB), LEASE).await.unwrap().unwrap();
    assert!(subject.store.settle(&claim, &too_large(30 * GIB)).await.unwrap());
    assert_eq!(subject.claimed_by(8 * GIB).await, None);
    let claim = subject.store.claim_for(&offer(40 * GIB), LEASE).await.unwrap().unwrap();
    assert_eq!(claim.id, id);
    assert!(subject.store.settle(&claim, &too_large(50 * GIB)).await.unwrap(), "nobody has that much");
    assert_eq!(subject.record(&claim).await.status, Status::Failed);
}

on_every_store![
    the_highest_priority_is_claimed_first_and_the_oldest_of_it,
    tenants_run_as_many_jobs_each_whatever_their_priorities,
    tenants_take_turns_on_a_single_slot,
    a_job_waits_for_a_slot_with_room_and_lets_others_pass,
    a_job_that_turns_out_too_large_goes_to_a_slot_that_has_room,
];
