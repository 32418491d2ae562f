//! What lies beside the jobs: keys, uploaded texts, and deliveries.

use std::time::Duration;

use graspd::{
    clock::{Ids, RandomIds},
    job::{EventKind, JobSpec, Scope, TextFormat},
    queue::{DatasetRecord, KeyHash, NewKey, Outcome, Submission, Submitted},
};
use serde_json::json;

use crate::{Kind, LEASE, Subject};

async fn a_key_is_found_by_its_hash_while_it_is_valid(kind: Kind) {
    let subject = Subject::new(kind).await;
    assert!(!subject.store.has_keys().await.unwrap());
    let add = async |id: &str, lifetime| {
        let scopes = vec![Scope::JobsRead];
        let new = NewKey { id: id.into(), tenant: "t".into(), scopes, hash: KeyHash::of(id), lifetime };
        subject.store.add_key(&new).await.unwrap()
    };
    let (first, brief) = (add("first", None).await, add("brief", Some(Duration::ZERO)).await);
    assert_eq!((first.expires_at, brief.expires_at.is_some()), (None, true));
    assert_eq!(subject.store.valid_key(&KeyHash::of("first")).await.unwrap().as_ref(), Some(&first));
    assert_eq!(subject.store.valid_key(&KeyHash::of("brief")).await.unwrap(), None);
    assert_eq!(subject.store.key("brief").await.unwrap(), Some(brief));
    assert!(subject.store.revoke_key("first", Duration::from_mins(1)).await.unwrap());
    let ending = subject.store.valid_key(&KeyHash::of("first")).await.unwrap().unwrap();
    assert_eq!((ending.expires_at.is_some(), ending.revoked_at), (true, None));
    assert!(subject.store.revoke_key("first", Duration::ZERO).await.unwrap());
    assert_eq!(subject.store.valid_key(&KeyHash::of("first")).await.unwrap(), None);
    assert!(!subject.store.revoke_key("none", Duration::ZERO).await.unwrap());
    assert!(subject.store.has_keys().await.unwrap());
    assert_eq!(subject.store.keys().await.unwrap().len(), 2);
}

async fn texts_are_counted_by_tenant(kind: Kind) {
    let subject = Subject::new(kind).await;
    let add = async |tenant: &str, bytes| {
        let dataset = DatasetRecord {
            id: RandomIds.dataset_id(),
            tenant: tenant.into(),
            name: "text".into(),
            format: TextFormat::Jsonl,
            bytes,
            sha256: "00".repeat(32),
            created_at: 0,
        };
        subject.store.add_dataset(&dataset).await.unwrap()
    };
    let (one, other) = (add("one", 5).await, add("other", 7).await);
    add("one", 6).await;
    assert!(one.created_at > 0);
    assert_eq!(subject.store.dataset(&other.id).await.unwrap(), Some(other));
    assert_eq!(subject.store.datasets("one").await.unwrap().len(), 2);
    assert_eq!(subject.store.dataset_bytes("one").await.unwrap(), 11);
    assert_eq!(subject.store.dataset_bytes("nobody").await.unwrap(), 0);
    assert!(subject.store.remove_dataset(&one.id).await.unwrap());
    assert!(!subject.store.remove_dataset(&one.id).await.unwrap());
    assert_eq!(subject.store.dataset_bytes("one").await.unwrap(), 6);
}

async fn an_event_is_told_once_to_the_url_its_job_names(kind: Kind) {
    let subject = Subject::new(kind).await;
    subject.running().await;
    assert_eq!(subject.store.due_delivery(LEASE).await.unwrap(), None, "that job names no URL");
    let spec = json!({"model": "file:tiny-llama", "webhook_url": "https://example.com/hook"});
    let submission = Submission::new(RandomIds.job_id(), JobSpec::parse(&spec).unwrap());
    subject.store.enqueue(&submission).await.unwrap();
    let claim = subject.claim(LEASE).await;
    let first = subject.store.due_delivery(Duration::ZERO).await.unwrap().unwrap();
    assert_eq!((first.job.id, first.event.kind, first.attempts), (claim.id, EventKind::Started, 1));
    subject.store.put_off(&first.id, Duration::ZERO).await.unwrap();
    let again = subject.store.due_delivery(LEASE).await.unwrap().unwrap();
    assert_eq!((&again.id, again.attempts), (&first.id, 2));
    assert_eq!(subject.store.due_delivery(LEASE).await.unwrap(), None);
    subject.store.close_delivery(&first.id).await.unwrap();
    subject.store.settle(&claim, &Outcome::Succeeded).await.unwrap();
    let last = subject.store.due_delivery(LEASE).await.unwrap().unwrap();
    assert_eq!((last.event.kind, last.event.seq), (EventKind::Succeeded, 3));
}

async fn the_character_nul_is_no_trouble(kind: Kind) {
    let subject = Subject::new(kind).await;
    let spec = JobSpec::parse(&json!({"model": "file:tiny-llama", "metadata": {"a\u{0}": "b\u{0}", "run": "7"}}));
    let submission = Submission::new(RandomIds.job_id(), spec.unwrap());
    let Submitted::Accepted(record) = subject.store.enqueue(&submission).await.unwrap() else { panic!("refused") };
    assert_eq!(record.spec, submission.spec);
    let claim = subject.claim(LEASE).await;
    let progress = graspd::job::Progress {
        part: Some("mlp\u{0}".into()),
        ..graspd::job::Progress::new(graspd::job::Stage::Gradients, 1, 2)
    };
    subject.store.beat(&claim, Some(&progress), LEASE).await.unwrap();
    let failure = graspd::job::Failure::give_up(graspd::job::FailureCode::InvalidModel, "tensor \u{0} is odd");
    assert!(subject.store.settle(&claim, &Outcome::Failed(failure)).await.unwrap());
    assert!(subject.record(&claim).await.error.unwrap().message.ends_with("is odd"));
}

on_every_store![
    a_key_is_found_by_its_hash_while_it_is_valid,
    texts_are_counted_by_tenant,
    an_event_is_told_once_to_the_url_its_job_names,
    the_character_nul_is_no_trouble,
];
