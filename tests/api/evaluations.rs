//! Scores of a model as it is.

use serde_json::{Value, json};

use crate::{TestApp, code};

async fn submit(app: &TestApp, body: &Value) -> reqwest::Response {
    app.request(reqwest::Method::POST, "/v1/evaluations").json(body).send().await.unwrap()
}

#[tokio::test]
async fn an_evaluation_is_a_job_of_its_own_kind() {
    let app = TestApp::new().await;
    let body = json!({
        "model": "file:tiny-llama",
        "evaluation": {"perplexity": ["wikitext2"], "tasks": ["piqa", "wikitext"], "num_fewshot": 2, "limit": 10},
        "metadata": {"run": "7"},
    });
    let response = submit(&app, &body).await;
    assert_eq!(response.status(), 202);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let job: Value = response.json().await.unwrap();
    assert_eq!(location, format!("/v1/jobs/{}", job["id"].as_str().unwrap()));
    assert_eq!((&job["spec"]["kind"], &job["status"]), (&json!("evaluate"), &json!("queued")));
    assert_eq!(job["spec"]["evaluation"]["tasks"], json!(["piqa", "wikitext"]));
    let seen: Value = app.get(&location).await.json().await.unwrap();
    assert_eq!((&seen["id"], &seen["metadata"]), (&job["id"], &body["metadata"]));
}

#[tokio::test]
async fn what_only_a_compression_has_is_refused_by_name() {
    let app = TestApp::new().await;
    for (body, field) in [
        (json!({"model": "file:m", "grasp": {"layers": 2}}), "grasp"),
        (json!({"model": "file:m", "kind": "compress"}), "kind"),
        (json!({"model": "file:m", "evaluation": {"tasks": ["quiz"]}}), "evaluation.tasks[0]"),
        (json!({"model": "file:m", "evaluation": {"perplexity": []}}), "evaluation.perplexity"),
        (json!({"evaluation": {}}), "model"),
    ] {
        let response = submit(&app, &body).await;
        assert_eq!(response.status(), 422, "{body}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!((&problem["code"], &problem["field"]), (&json!("invalid_spec"), &json!(field)), "{problem}");
    }
}

#[tokio::test]
async fn an_evaluation_that_is_sent_again_is_not_made_again() {
    let app = TestApp::new().await;
    let send = async |body: &Value| {
        let request = app.request(reqwest::Method::POST, "/v1/evaluations").header("idempotency-key", "k");
        request.json(body).send().await.unwrap()
    };
    let body = json!({"model": "file:tiny-llama"});
    let first: Value = send(&body).await.json().await.unwrap();
    let again = send(&body).await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(again.json::<Value>().await.unwrap()["id"], first["id"]);
    assert_eq!(code(send(&json!({"model": "file:other"})).await).await, "idempotency_key_reused");
}
