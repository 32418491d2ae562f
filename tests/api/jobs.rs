//! Submitting, showing, listing and cancelling.

use graspd::{
    job::{Failure, FailureCode, Progress, Stage},
    queue::{Offer, Outcome},
};
use serde_json::{Value, json};

use crate::{LEASE, TestApp, code, header};

#[tokio::test]
async fn a_job_is_accepted_with_every_default_filled_in() {
    let app = TestApp::new().await;
    let response = app.create_job(&json!({"model": "org/name", "metadata": {"run": "7"}})).await;
    assert_eq!(response.status(), 202);
    let location = header(&response, "location").to_owned();
    let mut job: Value = response.json().await.unwrap();
    assert_eq!(location, format!("/v1/jobs/{}", job["id"].as_str().unwrap()));
    assert_eq!(app.get(&location).await.json::<Value>().await.unwrap(), job);
    assert!(job["created_at"].as_i64().unwrap() > 1_700_000_000);
    // These two differ from run to run.
    job["id"] = "ID".into();
    job["created_at"] = 0.into();
    insta::assert_json_snapshot!("queued_job", job);
}

#[tokio::test]
async fn a_running_job_shows_its_stage_and_how_far_it_is() {
    let app = TestApp::new().await;
    let claim = app.running().await;
    let progress = Progress { layer: Some(21), part: Some("mlp".into()), ..Progress::new(Stage::Gradients, 12, 32) };
    app.store.beat(&claim, Some(&progress), LEASE).await.unwrap();
    let job: Value = app.get_job(&claim.id.to_string()).await.json().await.unwrap();
    assert_eq!(job["status"], "running");
    assert_eq!(job["stage"], "gradients");
    assert_eq!(job["progress"], json!({"done": 12, "total": 32, "layer": 21, "part": "mlp"}));
    assert_eq!(job["attempt"], 1);
    assert!(job["started_at"].is_i64() && job["finished_at"].is_null());
}

#[tokio::test]
async fn a_failed_job_says_why() {
    let app = TestApp::new().await;
    let failure = Failure::give_up(FailureCode::UnsupportedModel, "GPT2LMHeadModel is not implemented");
    let id = app.ended(Outcome::Failed(failure)).await;
    let job: Value = app.get_job(&id).await.json().await.unwrap();
    assert_eq!(job["status"], "failed");
    assert_eq!(job["error"], json!({"code": "unsupported_model", "message": "GPT2LMHeadModel is not implemented"}));
    assert!(job["finished_at"].is_i64());
}

#[tokio::test]
async fn jobs_are_listed_newest_first_page_by_page() {
    let app = TestApp::new().await;
    let mut submitted = [app.queued().await, app.queued().await, app.queued().await];
    submitted.reverse();
    let first: Value = app.list_jobs("?limit=2").await.json().await.unwrap();
    assert_eq!((&first["object"], &first["has_more"]), (&json!("list"), &json!(true)));
    assert_eq!(ids(&first), submitted[..2]);
    let second: Value = app.list_jobs(&format!("?limit=2&after={}", submitted[1])).await.json().await.unwrap();
    assert_eq!(second["has_more"], false);
    assert_eq!(ids(&second), submitted[2..]);
}

#[tokio::test]
async fn jobs_are_listed_by_status() {
    let app = TestApp::new().await;
    let failed = app.ended(Outcome::Failed(Failure::give_up(FailureCode::Internal, "no"))).await;
    app.queued().await;
    let list: Value = app.list_jobs("?status=failed").await.json().await.unwrap();
    assert_eq!(ids(&list), [failed]);
}

fn ids(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn jobs_are_listed_by_their_labels() {
    let app = TestApp::new().await;
    for (run, team) in [("7", "a"), ("7", "b"), ("8", "a")] {
        app.create_job(&json!({"model": "org/name", "metadata": {"run": run, "the team": team}})).await;
    }
    for (query, count) in [
        ("?metadata[run]=7", 2),
        ("?metadata%5Brun%5D=7&metadata[the%20team]=a", 1),
        ("?metadata[run]=9", 0),
        ("?metadata[other]=7", 0),
    ] {
        let list: Value = app.list_jobs(query).await.json().await.unwrap();
        assert_eq!(ids(&list).len(), count, "{query}");
    }
}

#[tokio::test]
async fn a_query_that_means_nothing_is_refused_by_name() {
    let app = TestApp::new().await;
    for (query, field) in [
        ("?limit=0", "limit"),
        ("?limit=101", "limit"),
        ("?limit=ten", "limit"),
        ("?status=waiting", "status"),
        ("?after=1", "after"),
        ("?before=1", "before"),
        ("?limit=1&limit=2", "limit"),
        ("?metadata=1", "metadata"),
        ("?metadata[a]=1&metadata[a]=2", "metadata[a]"),
    ] {
        let response = app.list_jobs(query).await;
        assert_eq!(response.status(), 400, "{query}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!((&problem["code"], &problem["field"]), (&json!("invalid_query"), &json!(field)), "{query}");
    }
}

#[tokio::test]
async fn a_queued_job_is_cancelled_once() {
    let app = TestApp::new().await;
    let id = app.queued().await;
    let response = app.cancel_job(&id).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.json::<Value>().await.unwrap()["status"], "cancelled");
    let again = app.cancel_job(&id).await;
    assert_eq!(again.status(), 409);
    assert_eq!(code(again).await, "job_already_over");
}

#[tokio::test]
async fn a_running_job_shows_that_it_was_asked_to_stop() {
    let app = TestApp::new().await;
    let claim = app.running().await;
    let job: Value = app.cancel_job(&claim.id.to_string()).await.json().await.unwrap();
    assert_eq!((&job["status"], &job["cancel_requested"]), (&json!("running"), &json!(true)));
}

#[tokio::test]
async fn every_path_of_a_job_that_is_not_there_says_the_same() {
    let app = TestApp::new().await;
    for id in ["01890a5d-ac96-774b-bcce-b302099a8057", "1", "%ff", "..%2F..", "01890A5D-AC96-774B-BCCE-B302099A8057"] {
        for response in [
            app.get_job(id).await,
            app.cancel_job(id).await,
            app.get_report(id).await,
            app.list_artifacts(id).await,
            app.get_artifact(id, "model.safetensors").await,
        ] {
            assert_eq!(response.status(), 404, "{id}");
            assert_eq!(code(response).await, "job_not_found", "{id}");
        }
    }
}

#[tokio::test]
async fn a_queued_job_says_what_no_worker_can_give_it() {
    let app = TestApp::new().await;
    let response = app.create_job(&json!({"model": "org/name", "priority": 5, "min_memory": "40GiB"})).await;
    let job: Value = response.json().await.unwrap();
    assert_eq!(
        (&job["priority"], &job["waits_for"]),
        (&json!(5), &json!("a worker with 40.0 GiB of memory: none is up"))
    );
    let id = job["id"].as_str().unwrap();
    let waits_for = async |memory: u64| {
        app.store.announce(&Offer { worker: "one".into(), memory: memory << 30 }).await.unwrap();
        app.get_job(id).await.json::<Value>().await.unwrap()["waits_for"].clone()
    };
    let too_small = "a slot with 40.0 GiB of memory: the largest of the workers that are up has 8.0 GiB";
    assert_eq!(waits_for(8).await, too_small);
    assert_eq!(waits_for(40).await, Value::Null);
}
