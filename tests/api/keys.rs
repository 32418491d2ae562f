//! Keys, tenants, scopes and rates.

use std::{num::NonZeroU32, time::Duration};

use graspd::{
    http::{RateLimit, Settings, openapi},
    job::Scope,
    queue::{KeyHash, KeyStore, NewKey},
};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::{SETTINGS, TestApp, code, header};

pub(crate) async fn add_key(app: &TestApp, key: &str, tenant: &str, scopes: &[Scope], lifetime: Option<Duration>) {
    let scopes = scopes.to_vec();
    let new = NewKey { id: format!("key_{key}"), tenant: tenant.into(), scopes, hash: KeyHash::of(key), lifetime };
    app.database.add_key(&new).await.unwrap();
}

async fn ask(app: &TestApp, method: Method, path: &str, key: &str) -> Response {
    app.request(method, path).bearer_auth(key).send().await.unwrap()
}

async fn submit(app: &TestApp, key: &str) -> String {
    let request = app.request(Method::POST, "/v1/jobs").bearer_auth(key).json(&json!({"model": "org/name"}));
    let job: Value = request.send().await.unwrap().json().await.unwrap();
    job["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn once_there_is_a_key_every_request_needs_one() {
    let app = TestApp::new().await;
    assert_eq!(app.list_jobs("").await.status(), 200, "open before");
    add_key(&app, "a", "one", &Scope::ALL, None).await;
    for path in ["/v1/jobs", "/v1/datasets", "/v1/capabilities", "/metrics", "/v1/nothing"] {
        let refused = app.get(path).await;
        assert_eq!((refused.status().as_u16(), header(&refused, "www-authenticate")), (401, "Bearer"), "{path}");
        assert_eq!(code(refused).await, "key_needed", "{path}");
    }
    for path in ["/livez", "/readyz", "/version", "/openapi.yaml"] {
        assert_eq!(app.get(path).await.status(), 200, "{path}");
    }
    assert_eq!(ask(&app, Method::GET, "/v1/jobs", "a").await.status(), 200);
    for key in ["b", "", "a "] {
        let response = app.get_with("/v1/jobs", "authorization", &format!("Bearer {key}x")).await;
        assert_eq!(code(response).await, "invalid_key", "{key}");
    }
    assert_eq!(code(app.get_with("/v1/jobs", "authorization", "Basic YTpi").await).await, "invalid_key");
    assert!(app.database.revoke_key("key_a", Duration::ZERO).await.unwrap());
    assert_eq!(code(ask(&app, Method::GET, "/v1/jobs", "a").await).await, "invalid_key");
    assert_eq!(code(app.list_jobs("").await).await, "key_needed", "revoking the last key opens nothing");
}

#[tokio::test]
async fn the_jobs_of_others_are_as_if_they_were_not() {
    let app = TestApp::new().await;
    add_key(&app, "a", "one", &Scope::ALL, None).await;
    add_key(&app, "b", "two", &Scope::ALL, None).await;
    let id = submit(&app, "a").await;
    let upload = app.request(Method::POST, "/v1/datasets?name=mine").bearer_auth("a");
    let upload = upload.header("content-type", "text/plain").body("some text\n").send().await.unwrap();
    let dataset: Value = upload.json().await.unwrap();
    let dataset = dataset["id"].as_str().unwrap();
    let description = serde_json::to_value(openapi()).unwrap();
    let mut asked = 0;
    // Every operation there is, so that none can be forgotten.
    for (path, item) in description["paths"].as_object().unwrap().iter().filter(|(path, _)| path.contains("{id}")) {
        let is_job = path.starts_with("/v1/jobs/");
        let (own, missing) = match is_job {
            true => (id.as_str(), "01890a5d-ac96-774b-bcce-b302099a8057"),
            false => (dataset, "ds_01890a5dac96774bbcceb302099a8057"),
        };
        for method in item.as_object().unwrap().keys().filter_map(|name| name.to_uppercase().parse::<Method>().ok()) {
            let at = |id: &str| path.replace("{id}", id).replace("{name}", "report.json");
            let theirs = ask(&app, method.clone(), &at(own), "b").await;
            let nobodys = ask(&app, method.clone(), &at(missing), "b").await;
            assert_eq!((theirs.status(), theirs.status().as_u16()), (nobodys.status(), 404), "{method} {path}");
            assert_eq!(theirs.text().await.unwrap(), nobodys.text().await.unwrap(), "{method} {path}");
            asked += 1;
        }
    }
    assert!(asked >= 14, "{asked} operations on a job or a data set");
    assert_eq!(ask(&app, Method::GET, &format!("/v1/datasets/{dataset}"), "a").await.status(), 200);
    let list: Value = ask(&app, Method::GET, "/v1/jobs", "b").await.json().await.unwrap();
    assert_eq!(list["data"], json!([]));
    assert_eq!(ask(&app, Method::GET, &format!("/v1/jobs/{id}"), "a").await.status(), 200);
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_its_tenant() {
    let app = TestApp::new().await;
    add_key(&app, "a", "one", &Scope::ALL, None).await;
    add_key(&app, "b", "two", &Scope::ALL, None).await;
    let mut ids = Vec::new();
    for key in ["a", "b"] {
        let request = app.request(Method::POST, "/v1/jobs").bearer_auth(key).header("idempotency-key", "same");
        let job: Value = request.json(&json!({"model": "org/name"})).send().await.unwrap().json().await.unwrap();
        ids.push(job["id"].clone());
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_key_may_do_what_its_scopes_say() {
    let app = TestApp::new().await;
    add_key(&app, "reader", "one", &[Scope::JobsRead], None).await;
    assert_eq!(ask(&app, Method::GET, "/v1/jobs", "reader").await.status(), 200);
    for (method, path) in [(Method::POST, "/v1/jobs"), (Method::GET, "/v1/datasets"), (Method::GET, "/metrics")] {
        let refused = ask(&app, method, path, "reader").await;
        assert_eq!((refused.status().as_u16(), code(refused).await.as_str()), (403, "scope_needed"), "{path}");
    }
}

#[tokio::test]
async fn a_key_ends_by_itself() {
    let app = TestApp::new().await;
    add_key(&app, "short", "one", &Scope::ALL, Some(Duration::ZERO)).await;
    assert_eq!(code(ask(&app, Method::GET, "/v1/jobs", "short").await).await, "invalid_key");
}

#[tokio::test]
async fn a_page_of_another_site_cannot_use_an_open_service() {
    let app = TestApp::new().await;
    for (site, status) in [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)] {
        assert_eq!(app.get_with("/v1/jobs", "sec-fetch-site", site).await.status(), status, "{site}");
    }
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let rate = RateLimit { per_second: NonZeroU32::new(1) };
    let app = TestApp::with_settings(Settings { rate, ..SETTINGS }).await;
    let mut limited = None;
    for _ in 0..20 {
        let response = app.list_jobs("").await;
        if response.status() == 429 {
            limited = Some(response);
        }
    }
    let limited = limited.expect("a limit");
    assert_eq!((header(&limited, "retry-after"), app.get("/livez").await.status().as_u16()), ("1", 200));
    assert_eq!(code(limited).await, "rate_limited");
}
