use graspd::queue::{JobStore as _, Outcome};
use reqwest::Method;
use serde_json::{Value, json};

use super::app::{TestApp, problem};

#[tokio::test]
async fn a_job_is_accepted_with_its_defaults_and_its_address() {
    let app = TestApp::start().await;
    let response = app.post_job(&json!({"model": "org/name", "grasp": {"layers": 8, "retain_ratio": 0.3}})).await;
    assert_eq!(response.status(), 202);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let mut job: Value = response.json().await.unwrap();
    assert_eq!(app.get(&location).await.json::<Value>().await.unwrap(), job);
    assert!(job["created_at"].as_i64().unwrap() > 1_600_000_000);
    for volatile in ["id", "created_at"] {
        job[volatile] = json!("…");
    }
    insta::assert_json_snapshot!(job);
}

#[tokio::test]
async fn a_job_shows_how_far_it_is_and_how_it_ended() {
    let app = TestApp::start().await;
    let id = app.submit().await;
    let claim = app.claim().await;
    let progress = serde_json::from_value(json!({"stage": "gradients", "done": 3, "total": 16, "layer": 7})).unwrap();
    app.store.beat(&claim, Some(&progress), std::time::Duration::from_mins(1)).await.unwrap();
    let job = app.job(id).await;
    assert_eq!((&job["status"], &job["stage"], &job["attempt"]), (&json!("running"), &json!("gradients"), &json!(1)));
    assert_eq!(job["progress"], json!({"stage": "gradients", "done": 3, "total": 16, "layer": 7}));
    assert!(app.store.settle(&claim, &Outcome::Succeeded).await.unwrap());
    let job = app.job(id).await;
    assert_eq!(job["status"], "succeeded");
    assert!(job["finished_at"].is_i64() && job["error"].is_null());

    let job = app.job(app.failed().await).await;
    assert_eq!(job["error"], json!({"code": "model_not_found", "message": "there is no such folder"}));
}

#[tokio::test]
async fn bodies_that_are_no_job_are_refused_by_kind() {
    let app = TestApp::start().await;
    let post = || app.request(Method::POST, "/v1/jobs");
    let json = |body: &'static str| post().header("content-type", "application/json").body(body);
    let refused = |code: &str, status| (status, code.to_owned(), None);
    assert_eq!(problem(json("{").send().await.unwrap()).await, refused("invalid_json", 400));
    assert_eq!(problem(post().body("{}").send().await.unwrap()).await, refused("unsupported_media_type", 415));
    let long = format!("{{\"model\": \"{}\"}}", "x".repeat(70_000));
    let response = post().header("content-type", "application/json").body(long).send().await.unwrap();
    assert_eq!(problem(response).await, refused("body_too_large", 413));
    for (body, field) in [
        (r#"{"model": "a/b", "ratio": 1}"#, "ratio"),
        (r#"{"model": "a/b", "grasp": {"retain_ratio": 2}}"#, "grasp.retain_ratio"),
        (r#"{"model": "a/b", "grasp": {"retain_ratio": 0.1, "importance_threshold": 0.2}}"#, "grasp.importance_threshold"),
        (r#"{"model": "/etc"}"#, "model"),
        ("[]", "body"),
    ] {
        let expected = (422, "invalid_spec".to_owned(), Some(field.to_owned()));
        assert_eq!(problem(json(body).send().await.unwrap()).await, expected, "{body}");
    }
    assert_eq!(app.get("/v1/jobs").await.json::<Value>().await.unwrap()["data"], json!([]));
}

#[tokio::test]
async fn the_problem_has_the_agreed_shape() {
    let app = TestApp::start().await;
    let response = app.post_job(&json!({"model": "a/b", "grasp": {"ratio": 0.2}})).await;
    insta::assert_json_snapshot!(response.json::<Value>().await.unwrap());
}

#[tokio::test]
async fn jobs_are_listed_newest_first_in_pages() {
    let app = TestApp::start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(app.submit().await.to_string());
    }
    ids.reverse();
    let page = |query: String| {
        let app = &app;
        async move {
            let list: Value = app.get(&format!("/v1/jobs?{query}")).await.json().await.unwrap();
            assert_eq!(list["object"], "list");
            let ids: Vec<String> = list["data"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect();
            (ids, list["has_more"].as_bool().unwrap())
        }
    };
    assert_eq!(page("limit=2".into()).await, (ids[..2].to_vec(), true));
    assert_eq!(page(format!("limit=2&after={}", ids[1])).await, (ids[2..4].to_vec(), true));
    assert_eq!(page(format!("limit=2&after={}", ids[3])).await, (ids[4..].to_vec(), false));
    app.cancel(ids[2].parse().unwrap()).await;
    assert_eq!(page("status=cancelled".into()).await, (ids[2..3].to_vec(), false));
    for (query, field) in [("limit=0", Some("limit")), ("limit=101", Some("limit")), ("after=x", Some("after")), ("status=lost", Some("status")), ("colour=red", None)] {
        let (status, code, found) = problem(app.get(&format!("/v1/jobs?{query}")).await).await;
        assert_eq!((status, code.as_str(), found.as_deref()), (400, "invalid_query", field), "{query}");
    }
}

#[tokio::test]
async fn a_cancel_ends_a_queued_job_and_asks_a_running_one_to_stop() {
    let app = TestApp::start().await;
    let queued = app.submit().await;
    let response = app.cancel(queued).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.json::<Value>().await.unwrap()["status"], "cancelled");
    assert_eq!(problem(app.cancel(queued).await).await.1, "job_already_over");

    let running = app.submit().await;
    app.claim().await;
    let job: Value = app.cancel(running).await.json().await.unwrap();
    assert_eq!((&job["status"], &job["cancel_requested"]), (&json!("running"), &json!(true)));
}

#[tokio::test]
async fn what_is_no_job_is_not_found() {
    let app = TestApp::start().await;
    for id in ["01890a5d-ac96-774b-bcce-b302099a8057", "nonsense", "01890a5dac96774bbcceb302099a8057", "%2e%2e", "%ff"] {
        for path in [format!("/v1/jobs/{id}"), format!("/v1/jobs/{id}/report"), format!("/v1/jobs/{id}/artifacts"), format!("/v1/jobs/{id}/artifacts/x")] {
            let response = app.get(&path).await;
            assert_eq!(problem(response).await, (404, "job_not_found".into(), None), "{path}");
        }
        let response = app.request(Method::POST, &format!("/v1/jobs/{id}/cancel")).send().await.unwrap();
        assert_eq!(problem(response).await.1, "job_not_found");
    }
}
