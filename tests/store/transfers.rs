//! Moving from one kind of database to the other and back.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use graspd::{
    clock::{Ids, RandomIds},
    job::{Failure, FailureCode, JobSpec, Progress, Stage},
    queue::{self, Idempotency, KeyHash, Listing, NewKey, Outcome, StoreError, Submission},
};
use serde_json::{Value, json};

use crate::{Kind, LEASE, Subject};

/// Jobs in every state, with a webhook, keys of two kinds, and a text that PostgreSQL has no place for.
async fn fill(subject: &Subject) {
    let spec = json!({"model": "file:tiny-llama", "metadata": {"run": "7"}, "webhook_url": "https://example.org/hook"});
    for number in 0..6 {
        let mut submission = Submission::new(RandomIds.job_id(), JobSpec::parse(&spec).unwrap());
        submission.idempotency = Some(Idempotency { key: number.to_string(), fingerprint: "ab".into() });
        subject.store.enqueue(&submission).await.unwrap();
    }
    let failure = Failure::give_up(FailureCode::InvalidModel, "no model called \"ü\\u0000\"");
    for outcome in [Outcome::Succeeded, Outcome::Failed(failure), Outcome::Cancelled, Outcome::Paused] {
        let claim = subject.claim(LEASE).await;
        subject.store.beat(&claim, Some(&Progress::new(Stage::Export, 1, 2)), LEASE).await.unwrap();
        subject.store.settle(&claim, &outcome).await.unwrap();
    }
    subject.claim(LEASE).await;
    let key = NewKey {
        id: "key_1".into(),
        tenant: "team".into(),
        scopes: Vec::new(),
        hash: KeyHash([7; 32]),
        lifetime: Some(Duration::from_hours(1)),
    };
    subject.store.add_key(&key).await.unwrap();
}

async fn export(subject: &Subject, path: &Path) -> String {
    queue::export(&subject.location, fs::File::create(path).unwrap()).await.unwrap();
    fs::read_to_string(path).unwrap()
}

/// The rows, however they are spaced and sorted.
fn rows(text: &str) -> BTreeSet<String> {
    text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap().to_string()).collect()
}

async fn import(subject: &Subject, text: &str) -> Result<queue::Moved, StoreError> {
    queue::import(&subject.location, text.as_bytes()).await
}

#[tokio::test]
async fn what_is_kept_goes_to_postgres_and_back_and_stays_the_same() {
    let Some(server) = Kind::postgres() else { return };
    let folder = tempfile::tempdir().unwrap();
    let first = Subject::new(Kind::Sqlite).await;
    fill(&first).await;
    let text = export(&first, &folder.path().join("first")).await;
    assert_eq!(text.lines().filter(|line| line.starts_with(r#"{"table":"jobs""#)).count(), 6);
    assert!(text.contains(r#"{"table":"webhook_deliveries""#));
    let (there, back) = (Subject::new(server).await, Subject::new(Kind::Sqlite).await);
    import(&there, &text).await.unwrap();
    assert_eq!(rows(&export(&there, &folder.path().join("there")).await), rows(&text));
    import(&back, &export(&there, &folder.path().join("again")).await).await.unwrap();
    assert_eq!(rows(&export(&back, &folder.path().join("back")).await), rows(&text));
    let all = Listing { limit: 10, ..Listing::default() };
    for subject in [&there, &back] {
        assert_eq!(subject.store.list(&all).await.unwrap(), first.store.list(&all).await.unwrap());
        assert!(subject.store.valid_key(&KeyHash([7; 32])).await.unwrap().is_some());
        // It goes on there.
        subject.claim(LEASE).await;
    }
    let labelled = Listing { metadata: [("run".to_owned(), "7".to_owned())].into(), ..all };
    assert_eq!(there.store.list(&labelled).await.unwrap().jobs.len(), 6);
}

#[tokio::test]
async fn a_database_in_use_and_a_file_that_is_damaged_are_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let first = Subject::new(Kind::Sqlite).await;
    fill(&first).await;
    let text = export(&first, &folder.path().join("first")).await;
    assert!(matches!(import(&first, &text).await, Err(StoreError::NotEmpty { table: "jobs" })));
    let empty = Subject::new(Kind::Sqlite).await;
    let cut = &text[..text.len() - 9];
    let swapped = text.replacen(r#""table":"jobs""#, r#""table":"works""#, 1);
    let lines: Vec<_> = text.lines().collect();
    let without_the_end = lines[..lines.len() - 1].join("\n");
    let without_a_row = [&lines[..lines.len() - 2], &lines[lines.len() - 1..]].concat().join("\n");
    for damaged in ["", "a song", r#"{"graspd_export":99}"#, cut, &swapped, &without_the_end, &without_a_row] {
        let error = import(&empty, damaged).await.unwrap_err();
        assert!(matches!(error, StoreError::Transfer { line: Some(_), .. }), "{error}");
        assert_eq!(empty.store.counts().await.unwrap().iter().map(|(_, jobs)| jobs).sum::<u64>(), 0);
    }
}
