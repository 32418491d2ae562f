//! What a job would do, and what the service can do.

use serde_json::{Value, json};

use crate::{TestApp, code};

async fn plan(app: &TestApp, body: &Value) -> Value {
    let response = app.request(reqwest::Method::POST, "/v1/plans").json(body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

#[tokio::test]
async fn a_plan_tells_sizes_without_starting_anything() {
    let app = TestApp::new().await;
    let body = json!({"model": "file:tiny-llama", "grasp": {"preset": "paper", "layers": [2, 5], "retain_ratio": 0.3}});
    let plan = plan(&app, &body).await;
    assert_eq!((&plan["object"], &plan["refusals"]), (&json!("plan"), &json!([])));
    assert_eq!((&plan["layers"], &plan["layer_count"]), (&json!([2, 5]), &json!(2)));
    assert_eq!(plan["architecture"], "LlamaForCausalLM");
    assert_eq!(plan["matrices"][0], json!({"projection": "q_proj", "shape": [128, 128], "rank": 19}));
    let (before, after) =
        (plan["parameters"]["before"].as_u64().unwrap(), plan["parameters"]["after"].as_u64().unwrap());
    assert!(after < before && plan["bytes"]["after"].as_u64() < plan["bytes"]["before"].as_u64());
    assert!(plan["memory_bytes"].as_u64().unwrap() > 4 * before && plan["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(plan["spec"]["calibration"]["samples"], 128);
    let list: Value = app.list_jobs("").await.json().await.unwrap();
    assert_eq!(list["data"], json!([]));
}

#[tokio::test]
async fn one_budget_has_sizes_but_no_ranks_yet() {
    let app = TestApp::new().await;
    let plan = plan(&app, &json!({"model": "file:tiny-llama", "grasp": {"target_compression": 0.2}})).await;
    let parameters = |side: &str| plan["parameters"][side].as_f64().unwrap();
    assert!((1.0 - parameters("after") / parameters("before") - 0.2).abs() < 0.01, "{plan}");
    assert_eq!(plan["matrices"][0]["rank"], json!(null));
    assert!(plan["notes"].to_string().contains("follow from the scores"));
}

#[tokio::test]
async fn a_plan_says_why_the_job_would_fail() {
    let app = TestApp::new().await;
    for (body, expected) in [
        (json!({"model": "file:tiny-llama", "grasp": {"layers": [99]}}), "invalid_spec"),
        (json!({"model": "file:nothing"}), "model_not_found"),
    ] {
        assert_eq!(plan(&app, &body).await["refusals"][0]["code"], expected);
    }
    let unknown = plan(&app, &json!({"model": "org/name"})).await;
    assert_eq!((&unknown["parameters"], &unknown["refusals"]), (&Value::Null, &json!([])));
    let response = app.request(reqwest::Method::POST, "/v1/plans").json(&json!({"model": "x"})).send().await.unwrap();
    assert_eq!((response.status().as_u16(), code(response).await.as_str()), (422, "invalid_spec"));
}

#[tokio::test]
async fn capabilities_name_what_a_form_offers() {
    let app = TestApp::new().await;
    let can: Value = app.get("/v1/capabilities").await.json().await.unwrap();
    let has = |list: &str, word: &str| can[list].as_array().unwrap().iter().any(|found| found == word);
    assert!(has("architectures", "LlamaForCausalLM") && has("methods", "remove") && has("schedules", "iterative"));
    assert!(has("models", "file:tiny-llama") && has("models", "file:families/qwen3"), "{can}");
    assert!(has("datasets", "wikitext2") && has("datasets", "file:calibration"), "{can}");
    assert_eq!((&can["devices"], &can["limits"]["dataset_bytes"]), (&json!(["cpu"]), &json!(10_000)));
}
