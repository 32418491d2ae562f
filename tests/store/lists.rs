//! Lists and counts.

use graspd::{
    job::Status,
    queue::{Listing, Outcome},
};

use crate::{Kind, LEASE, Subject};

async fn a_list_is_newest_first_and_ends(kind: Kind) {
    let subject = Subject::new(kind).await;
    let mut submitted = Vec::new();
    for _ in 0..5 {
        submitted.push(subject.submit().await.id);
    }
    submitted.reverse();

    let mut listed = Vec::new();
    let mut listing = Listing { limit: 2, ..Listing::default() };
    let mut pages = 0;
    loop {
        let page = subject.store.list(&listing).await.unwrap();
        listed.extend(page.jobs.iter().map(|job| job.id));
        pages += 1;
        if !page.has_more {
            break;
        }
        listing.after = listed.last().copied();
    }
    assert_eq!((pages, listed), (3, submitted));
}

async fn a_full_last_page_has_nothing_after_it(kind: Kind) {
    let subject = Subject::new(kind).await;
    subject.submit().await;
    subject.submit().await;
    let page = subject.store.list(&Listing { limit: 2, ..Listing::default() }).await.unwrap();
    assert_eq!((page.jobs.len(), page.has_more), (2, false));
}

async fn a_list_and_the_counts_tell_states_apart(kind: Kind) {
    let subject = Subject::new(kind).await;
    let done = subject.running().await;
    subject.store.settle(&done, &Outcome::Succeeded).await.unwrap();
    subject.running().await;
    subject.submit().await;
    subject.submit().await;

    let listing = Listing { limit: 100, status: Some(Status::Succeeded), ..Listing::default() };
    let page = subject.store.list(&listing).await.unwrap();
    assert_eq!(page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [done.id]);
    let expected = [
        (Status::Queued, 2),
        (Status::Running, 1),
        (Status::Paused, 0),
        (Status::Succeeded, 1),
        (Status::Failed, 0),
        (Status::Cancelled, 0),
    ];
    assert_eq!(subject.store.counts().await.unwrap(), expected);
    subject.store.ping().await.unwrap();
    assert_eq!(subject.store.claim("worker", LEASE).await.unwrap().map(|claim| claim.attempt), Some(1));
}

on_every_store![
    a_list_is_newest_first_and_ends,
    a_full_last_page_has_nothing_after_it,
    a_list_and_the_counts_tell_states_apart,
];
