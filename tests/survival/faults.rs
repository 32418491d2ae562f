//! The process ends at named places, between two things that belong together.

use crate::{
    setting,
    site::{Site, job},
};

/// Deaths at each place in the short form.
const DEATHS: u64 = 1;

/// Has a server, or its children, die at a place again and again, until it was often enough, over jobs that must succeed.
async fn die_at(place: &str, percent: u32) {
    let wanted = setting("GRASPD_TEST_FAULTS", DEATHS);
    let mut deaths = 0;
    while deaths < wanted {
        let mut site = Site::at_rest(&["--lease", "2s"]);
        site.set("FAILPOINTS", &format!("{place}={percent}%return"));
        let (id, done) = site.see_through(place, &job()).await;
        assert_eq!(done["status"], "succeeded", "{place}: {done}\n{}", site.log());
        site.set("FAILPOINTS", "");
        // It may have died since.
        site.ensure_running().await;
        // Of the server, or of a child, which costs an attempt.
        deaths += u64::from(site.deaths).max(done["attempt"].as_u64().unwrap() - 1);
        let (again, second) = site.see_through(place, &job()).await;
        assert_eq!((again, &second["attempt"]), (id, &done["attempt"]), "{place}: one key, one job, published once");
        site.stop_and_sweep().await;
        site.verify();
    }
}

#[tokio::test]
async fn in_the_middle_of_a_migration() {
    die_at("migrated", 12).await;
}

#[tokio::test]
async fn after_a_claim() {
    die_at("claimed", 50).await;
}

#[tokio::test]
async fn a_slot_that_panics_begins_again() {
    let mut site = Site::at_rest(&["--lease", "2s"]);
    site.set("FAILPOINTS", "claimed=1*panic");
    let (_, done) = site.see_through("only", &job()).await;
    assert_eq!((&done["status"], &done["attempt"]), (&"succeeded".into(), &2.into()), "{done}\n{}", site.log());
    assert!(site.log().contains("a slot broke off and begins again"));
    site.stop_and_sweep().await;
    site.verify();
}

#[tokio::test]
async fn in_the_middle_of_a_checkpoint() {
    die_at("checkpoint-unsealed", 40).await;
}

#[tokio::test]
async fn between_a_checkpoint_and_its_name() {
    die_at("checkpoint-synced", 40).await;
}

#[tokio::test]
async fn between_the_state_of_a_job_and_its_name() {
    die_at("state-synced", 15).await;
}

#[tokio::test]
async fn before_a_folder_is_published() {
    die_at("publish-synced", 60).await;
}

#[tokio::test]
async fn between_publishing_and_saying_so() {
    die_at("published", 60).await;
    die_at("settling", 60).await;
}

/// A job's event is written by the transaction that changes the job, so that there is nothing between the two.
#[tokio::test]
async fn after_saying_so() {
    die_at("settled", 60).await;
}

#[tokio::test]
async fn in_the_middle_of_a_deletion() {
    let mut deaths = 0;
    while deaths < setting("GRASPD_TEST_FAULTS", DEATHS) {
        let mut site = Site::at_rest(&["--lease", "2s"]);
        let (id, done) = site.see_through("old", &job()).await;
        assert_eq!(done["status"], "succeeded");
        site.terminate();
        // Older than what is kept when the next server looks.
        tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
        site.argue(&["--lease", "2s", "--retention", "1s"]);
        site.set("FAILPOINTS", "retention-files-removed=60%return");
        while site
            .send(reqwest::Method::GET, &format!("/v1/jobs/{id}"), None, None)
            .await
            .is_none_or(|r| r.status() != 404)
        {
            site.ensure_running().await;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        deaths += u64::from(site.deaths);
        site.set("FAILPOINTS", "");
        site.ensure_running().await;
        site.stop_and_sweep().await;
        site.verify();
        assert!(!site.data().join("artifacts").join(&id).exists());
    }
}
