//! Pausing, resuming, deleting, and the archive.

use std::io::Read;

use graspd::{
    job::{Failure, FailureCode},
    queue::Outcome,
};
use serde_json::{Value, json};

use crate::{TestApp, code, header, sha256};

async fn status(response: reqwest::Response) -> (u16, Value) {
    (response.status().as_u16(), response.json::<Value>().await.unwrap()["status"].clone())
}

#[tokio::test]
async fn a_waiting_job_is_paused_and_resumed() {
    let app = TestApp::new().await;
    let id = app.queued().await;
    for _ in 0..2 {
        assert_eq!(status(app.post(&format!("/v1/jobs/{id}/pause")).await).await, (200, json!("paused")));
    }
    let list: Value = app.list_jobs("?status=paused").await.json().await.unwrap();
    assert_eq!(list["data"][0]["id"], id);
    assert_eq!(app.store.claim("worker", crate::LEASE).await.unwrap(), None);
    assert_eq!(status(app.post(&format!("/v1/jobs/{id}/resume")).await).await, (200, json!("queued")));
    assert!(app.store.claim("worker", crate::LEASE).await.unwrap().is_some());
}

#[tokio::test]
async fn a_running_job_shows_that_it_will_pause() {
    let app = TestApp::new().await;
    let claim = app.running().await;
    let path = format!("/v1/jobs/{}", claim.id);
    let job: Value = app.post(&format!("{path}/pause")).await.json().await.unwrap();
    assert_eq!((&job["status"], &job["pause_requested"]), (&json!("running"), &json!(true)));
    let job: Value = app.post(&format!("{path}/resume")).await.json().await.unwrap();
    assert_eq!((&job["status"], &job["pause_requested"]), (&json!("running"), &json!(false)));
}

#[tokio::test]
async fn a_failed_job_is_resumed_and_one_that_succeeded_is_not() {
    let app = TestApp::new().await;
    let failed = app.ended(Outcome::Failed(Failure::give_up(FailureCode::DatasetNotFound, "no"))).await;
    let job: Value = app.post(&format!("/v1/jobs/{failed}/resume")).await.json().await.unwrap();
    assert_eq!((&job["status"], &job["error"], &job["finished_at"]), (&json!("queued"), &Value::Null, &Value::Null));
    app.cancel_job(&failed).await;
    let done = app.ended(Outcome::Succeeded).await;
    for verb in ["pause", "resume"] {
        let refused = app.post(&format!("/v1/jobs/{done}/{verb}")).await;
        assert_eq!((refused.status().as_u16(), code(refused).await.as_str()), (409, "job_already_over"), "{verb}");
    }
}

#[tokio::test]
async fn a_job_that_has_ended_is_deleted_with_all_its_files() {
    let app = TestApp::new().await;
    let active = app.queued().await;
    let refused = app.delete(&format!("/v1/jobs/{active}")).await;
    assert_eq!((refused.status().as_u16(), code(refused).await.as_str()), (409, "job_active"));
    app.cancel_job(&active).await;
    let done = app.succeeded(&[("model.safetensors", "0123")]).await;
    assert_eq!(app.delete(&format!("/v1/jobs/{done}")).await.status(), 204);
    for path in ["", "/events", "/logs", "/artifacts", "/report", "/artifacts/model.safetensors"] {
        assert_eq!(app.get(&format!("/v1/jobs/{done}{path}")).await.status(), 404, "{path}");
    }
    assert!(!app.folder.path().join("artifacts").join(&done).exists());
    assert_eq!(app.delete(&format!("/v1/jobs/{done}")).await.status(), 404);
}

#[tokio::test]
async fn an_archive_holds_every_file_as_it_was_published() {
    let app = TestApp::new().await;
    let long = format!("{}/{}.json", "deep".repeat(20), "long".repeat(30));
    let weights = "0123456789".repeat(100);
    let id = app.succeeded(&[("model.safetensors", &weights), (&long, "{}"), ("empty", "")]).await;
    let response = app.get(&format!("/v1/jobs/{id}/archive")).await;
    assert_eq!((response.status().as_u16(), header(&response, "content-type")), (200, "application/x-tar"));
    assert_eq!(header(&response, "content-disposition"), format!("attachment; filename=\"{id}.tar\""));
    let (length, tag) = (header(&response, "content-length").to_owned(), header(&response, "etag").to_owned());
    let bytes = response.bytes().await.unwrap();
    assert_eq!(bytes.len().to_string(), length);
    let mut found = std::collections::BTreeMap::new();
    for entry in tar::Archive::new(bytes.as_ref()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        found.insert(entry.path().unwrap().display().to_string(), content);
    }
    assert_eq!(found[&format!("{id}/model.safetensors")], weights);
    assert_eq!(found[&format!("{id}/{long}")], "{}");
    assert_eq!(found[&format!("{id}/empty")], "");
    assert!(found[&format!("{id}/SHA256SUMS")].contains(&sha256(&weights)));
    let known = app.get_with(&format!("/v1/jobs/{id}/archive"), "if-none-match", &tag).await;
    assert_eq!(known.status(), 304);
    let waiting = app.queued().await;
    let refused = app.get(&format!("/v1/jobs/{waiting}/archive")).await;
    assert_eq!((refused.status().as_u16(), code(refused).await.as_str()), (409, "job_not_finished"));
}
