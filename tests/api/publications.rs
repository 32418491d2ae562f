//! Publishing to the hub, as far as the API goes; what a hub does is tested with the checkpoint's layer.

use std::sync::Mutex;

use graspd::{
    job::{JobId, Publication, PublicationOrder, PublicationRefusal, PublicationStatus, Publisher},
    queue::Outcome,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{TestApp, code, header};

/// Remembers what it was told, and is never done.
#[derive(Default)]
pub(crate) struct Recorder {
    orders: Mutex<Vec<(JobId, PublicationOrder)>>,
}

impl Publisher for Recorder {
    fn publish(&self, job: JobId, order: PublicationOrder) -> Result<Publication, PublicationRefusal> {
        if order.token.is_none() {
            return Err(PublicationRefusal::NoToken);
        }
        if self.publication(job).is_some() {
            return Err(PublicationRefusal::Running);
        }
        self.orders.lock().unwrap().push((job, order));
        Ok(self.publication(job).unwrap())
    }

    fn publication(&self, job: JobId) -> Option<Publication> {
        let orders = self.orders.lock().unwrap();
        let (_, order) = orders.iter().find(|(known, _)| *known == job)?;
        Some(Publication {
            repo: order.repository.clone(),
            status: PublicationStatus::Running,
            done: 0,
            total: 0,
            url: None,
            commit: None,
            error: None,
        })
    }
}

impl TestApp {
    async fn publish_job(&self, id: &str, body: &Value, token: Option<&str>) -> reqwest::Response {
        let request = self.request(Method::POST, &format!("/v1/jobs/{id}/publish")).json(body);
        let request = token.into_iter().fold(request, |request, token| request.header("X-HF-Token", token));
        request.send().await.unwrap()
    }

    async fn get_publication(&self, id: &str) -> reqwest::Response {
        self.get(&format!("/v1/jobs/{id}/publish")).await
    }
}

#[tokio::test]
async fn an_order_to_publish_is_taken_and_can_be_watched() {
    let app = TestApp::new().await;
    let id = app.succeeded(&[("report.json", "{}")]).await;
    assert_eq!(code(app.get_publication(&id).await).await, "not_published");
    let body = json!({"repo": "me/smaller", "private": false, "format": "dense"});
    let response = app.publish_job(&id, &body, Some("hf_mine")).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(header(&response, "location"), format!("/v1/jobs/{id}/publish"));
    let text = response.text().await.unwrap();
    assert!(text.contains("me/smaller") && !text.contains("hf_mine"), "{text}");
    let shown: Publication = app.get_publication(&id).await.json().await.unwrap();
    assert_eq!(shown.status, PublicationStatus::Running);
    let (_, order) = app.publisher.orders.lock().unwrap()[0].clone();
    assert_eq!((order.private, order.token.unwrap().expose()), (false, "hf_mine"));
    assert_eq!(code(app.publish_job(&id, &body, Some("hf_mine")).await).await, "publication_running");
}

#[tokio::test]
async fn orders_that_cannot_be_followed_are_refused() {
    let app = TestApp::new().await;
    let id = app.succeeded(&[("report.json", "{}")]).await;
    let body = json!({"repo": "me/smaller"});
    for (body, expected) in [
        (json!({"repo": "smaller"}), "invalid_spec"),
        (json!({"repo": "me/smaller", "token": "hf_mine"}), "invalid_spec"),
        (json!({}), "invalid_spec"),
        (body.clone(), "hub_token_missing"),
    ] {
        assert_eq!(code(app.publish_job(&id, &body, None).await).await, expected, "{body}");
    }
    let unknown = "0198c0de-0000-7000-8000-000000000000";
    assert_eq!(code(app.publish_job(unknown, &body, Some("t")).await).await, "job_not_found");
    assert_eq!(code(app.get_publication(unknown).await).await, "job_not_found");
    let queued = app.queued().await;
    assert_eq!(code(app.publish_job(&queued, &body, Some("t")).await).await, "job_not_finished");
    app.draining.start();
    assert_eq!(code(app.publish_job(&id, &body, Some("t")).await).await, "draining");
}

#[tokio::test]
async fn a_job_without_a_checkpoint_has_nothing_to_publish() {
    let app = TestApp::new().await;
    let cancelled = app.ended(Outcome::Cancelled).await;
    let response = app.publish_job(&cancelled, &json!({"repo": "me/smaller"}), Some("t")).await;
    assert_eq!(code(response).await, "job_not_succeeded");
}
