//! Models that other jobs have published.

use graspd::{job::Scope, queue::Outcome};
use reqwest::Response;
use serde_json::{Value, json};

use crate::{LEASE, TestApp, code, keys::add_key};

async fn refusal(response: Response) -> String {
    let status = response.status();
    let problem: Value = response.json().await.unwrap();
    assert_eq!((status.as_u16(), &problem["code"], &problem["field"]), (422, &json!("invalid_spec"), &json!("model")));
    problem["detail"].as_str().unwrap().to_owned()
}

fn body(id: &str) -> Value {
    json!({"model": format!("job:{id}"), "kind": "evaluate"})
}

#[tokio::test]
async fn only_a_finished_job_with_a_checkpoint_is_a_model() {
    let app = TestApp::new().await;
    let missing = "01890a5d-ac96-774b-bcce-b302099a8057";
    assert!(refusal(app.create_job(&body(missing)).await).await.contains("there is no job"));
    assert!(refusal(app.create_job(&body("1")).await).await.contains("not a job id"));
    let cancelled = app.ended(Outcome::Cancelled).await;
    assert!(refusal(app.create_job(&body(&cancelled)).await).await.contains("is cancelled"));
    let without = app.ended(Outcome::Succeeded).await;
    assert!(refusal(app.create_job(&body(&without)).await).await.contains("were deleted"));
    let id = app.succeeded(&[("config.json", "{}")]).await;
    for path in ["/v1/jobs", "/v1/plans"] {
        let request = app.request(reqwest::Method::POST, path);
        assert!(request.json(&body(&id)).send().await.unwrap().status().is_success(), "{path}");
    }
    let scored = app.store.claim("test", LEASE).await.unwrap().unwrap();
    app.publish(scored.id, &[("report.json", "{}")]).await;
    app.store.settle(&scored, &Outcome::Succeeded).await.unwrap();
    assert!(refusal(app.create_job(&body(&scored.id.to_string())).await).await.contains("only scored"));
    let waiting = app.queued().await;
    assert!(refusal(app.create_job(&body(&waiting)).await).await.contains("is queued"));
}

#[tokio::test]
async fn a_job_of_another_tenant_is_as_if_it_were_not() {
    let app = TestApp::new().await;
    let id = app.succeeded(&[("config.json", "{}")]).await;
    add_key(&app, "a", "another", &Scope::ALL, None).await;
    let request = app.request(reqwest::Method::POST, "/v1/jobs").bearer_auth("a");
    let detail = refusal(request.json(&body(&id)).send().await.unwrap()).await;
    assert!(detail.contains("there is no job"), "{detail}");
}

#[tokio::test]
async fn a_checkpoint_that_is_in_use_is_not_deleted() {
    let app = TestApp::new().await;
    let id = app.succeeded(&[("config.json", "{}")]).await;
    let user: Value = app.create_job(&body(&id)).await.json().await.unwrap();
    let user = user["id"].as_str().unwrap();
    assert_eq!(code(app.delete(&format!("/v1/jobs/{id}")).await).await, "job_in_use");
    app.cancel_job(user).await;
    assert_eq!(app.delete(&format!("/v1/jobs/{id}")).await.status(), 204);
}
