//! What only a store on a server can do: several processes, and a server that dies.

use std::time::Duration;

use graspd::job::Status;

use crate::{Kind, LEASE, PATIENCE, Subject, postgres::Postgres};

#[tokio::test]
async fn who_waits_in_another_process_is_woken() {
    let Some(kind) = Kind::postgres() else { return };
    let subject = Subject::new(kind).await;
    let elsewhere = Subject::open(&subject.location).await;
    let mut changes = elsewhere.changes();
    let id = subject.submit().await.id;
    let woken = async {
        // The listener of the other one may have begun only now, which wakes too.
        while elsewhere.get(id).await.unwrap().is_none_or(|job| job.status != Status::Cancelled) {
            changes.changed().await.unwrap();
            subject.store.cancel(id).await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, woken).await.expect("a word of the other process");
}

#[tokio::test]
async fn two_processes_may_migrate_at_once() {
    let Some(Kind::Postgres(server)) = Kind::postgres() else { return };
    let location = server.database().await;
    let (one, two) = tokio::join!(Subject::open(&location), Subject::open(&location));
    tokio::try_join!(one.ping(), two.ping()).unwrap();
}

#[tokio::test]
async fn a_server_that_was_killed_and_started_again_is_found_again() {
    let Some(mut server) = Postgres::start() else { return };
    let location = server.database().await;
    let store = Subject::open(&location).await;
    let id = graspd::clock::Ids::job_id(&graspd::clock::RandomIds);
    store.submit(id, &crate::spec()).await.unwrap();
    server.kill();
    let away = async {
        while store.ping().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, away).await.expect("an error");
    server.start_again();
    let back = async {
        while store.ping().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, back).await.expect("the server is found again");
    assert_eq!(store.claim("worker", LEASE).await.unwrap().unwrap().id, id, "what was accepted is there");
}
