//! What happened to a job, as a list and as a stream.

use graspd::{
    job::{Progress, Stage},
    queue::Outcome,
};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::{LEASE, TestApp, code, header};

async fn stream(app: &TestApp, id: &str, last: Option<&str>) -> Response {
    let request = app.request(Method::GET, &format!("/v1/jobs/{id}/events")).header("accept", "text/event-stream");
    let request = match last {
        Some(last) => request.header("last-event-id", last),
        None => request,
    };
    request.send().await.unwrap()
}

/// Number and type of every event of a stream that has ended.
fn events(text: &str) -> Vec<(u64, String)> {
    let field = |block: &str, name: &str| {
        block.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    let blocks = text.split("\n\n").filter(|block| block.contains("data:"));
    blocks
        .map(|block| {
            let data: Value = serde_json::from_str(&field(block, "data:").unwrap()).unwrap();
            let (id, kind) = (field(block, "id:").unwrap(), field(block, "event:").unwrap());
            assert_eq!((data["seq"].to_string(), data["type"].as_str().unwrap()), (id.clone(), kind.as_str()));
            (id.parse().unwrap(), kind)
        })
        .collect()
}

#[tokio::test]
async fn events_are_numbered_and_listed_page_by_page() {
    let app = TestApp::new().await;
    let claim = app.running().await;
    for done in 0..=4 {
        app.store.beat(&claim, Some(&Progress::new(Stage::Load, done, 4)), LEASE).await.unwrap();
    }
    app.store.settle(&claim, &Outcome::Succeeded).await.unwrap();
    let path = format!("/v1/jobs/{}/events", claim.id);
    let all: Value = app.get(&path).await.json().await.unwrap();
    let seqs: Vec<_> = all["data"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=8).collect::<Vec<_>>());
    assert_eq!(all["data"][1]["data"], json!({"attempt": 1}));
    assert_eq!(all["data"][2]["data"], json!({"stage": "load", "done": 0, "total": 4}));
    assert_eq!(all["data"][7]["type"], "job.succeeded");
    let page: Value = app.get(&format!("{path}?after=3&limit=2")).await.json().await.unwrap();
    assert_eq!((&page["data"][0]["seq"], &page["has_more"]), (&json!(4), &json!(true)));
    for query in ["?after=-1", "?limit=0", "?before=1"] {
        assert_eq!(app.get(&format!("{path}{query}")).await.status(), 400, "{query}");
    }
}

#[tokio::test]
async fn a_stream_goes_on_until_the_job_has_ended() {
    let app = TestApp::new().await;
    let claim = app.running().await;
    let response = stream(&app, &claim.id.to_string(), None).await;
    assert_eq!((response.status().as_u16(), header(&response, "content-type")), (200, "text/event-stream"));
    let reading = tokio::spawn(response.text());
    app.store.beat(&claim, Some(&Progress::new(Stage::Load, 0, 1)), LEASE).await.unwrap();
    app.store.settle(&claim, &Outcome::Succeeded).await.unwrap();
    let seen = events(&reading.await.unwrap().unwrap());
    let kinds = ["job.queued", "job.started", "job.progress", "job.succeeded"];
    assert_eq!(seen, (1..).zip(kinds.map(str::to_owned)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_client_that_comes_back_misses_nothing_and_sees_nothing_twice() {
    let app = TestApp::new().await;
    let id = app.ended(Outcome::Succeeded).await;
    let seen = events(&stream(&app, &id, Some("1")).await.text().await.unwrap());
    assert_eq!(seen.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(stream(&app, &id, Some("3")).await.status(), 204, "there is nothing more to come");
    let wrong = stream(&app, &id, Some("three")).await;
    assert_eq!((wrong.status().as_u16(), code(wrong).await.as_str()), (400, "invalid_last_event_id"));
}

#[tokio::test]
async fn a_server_that_stops_ends_its_streams() {
    let app = TestApp::new().await;
    let id = app.queued().await;
    let reading = tokio::spawn(stream(&app, &id, None).await.text());
    app.draining.start();
    assert_eq!(events(&reading.await.unwrap().unwrap()), [(1, "job.queued".to_owned())]);
}

#[tokio::test]
async fn a_log_is_shown_and_followed() {
    let app = TestApp::new().await;
    let claim = app.running().await;
    let path = format!("/v1/jobs/{}/logs", claim.id);
    assert_eq!(app.get(&path).await.text().await.unwrap(), "", "nothing is logged yet");
    let logs = app.folder.path().join("logs");
    std::fs::create_dir_all(&logs).unwrap();
    let file = logs.join(format!("{}.log", claim.id));
    std::fs::write(&file, "one\n").unwrap();
    let response = app.get(&path).await;
    assert_eq!(header(&response, "content-type"), "text/plain; charset=utf-8");
    assert_eq!(response.text().await.unwrap(), "one\n");
    let following = tokio::spawn(app.get(&format!("{path}?follow=1")).await.text());
    std::fs::write(&file, "one\ntwo\n").unwrap();
    app.store.settle(&claim, &Outcome::Succeeded).await.unwrap();
    assert_eq!(following.await.unwrap().unwrap(), "one\ntwo\n");
}
