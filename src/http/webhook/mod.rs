//! Telling a job's `webhook_url` that it started and how it ended, after the Standard Webhooks 1.0.0 specification.
//!
//! The queue files a delivery in the transaction of the event, so that none is lost; here they are sent, one after the
//! other, and tried again with growing pauses until the receiver takes them or a day has passed.

mod guard;
mod sign;

use std::{sync::Arc, time::Duration};

use guard::Guard;
use reqwest::{StatusCode, redirect::Policy};
use serde::Serialize;
pub use sign::{InvalidSecret, Secret};
use tokio::{sync::watch, time::timeout};

use super::JobView;
use crate::{
    clock::{Clock, UnixMillis},
    job::EventKind,
    queue::{Delivery, WebhookStore},
};

/// Pauses before the second and each further try.
const PAUSES: [Duration; 7] = [
    Duration::from_secs(5),
    Duration::from_mins(1),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(14),
];
/// How long a receiver may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// After which another process may try the same delivery.
const LEASE: Duration = Duration::from_mins(1);
/// Between two looks for something to tell.
const IDLE: Duration = Duration::from_secs(1);

/// How webhooks are sent.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Each signs every message: two while one takes the place of the other.
    pub secrets: Vec<Secret>,
    /// Whether this machine and its private network may be called. Only tests do.
    pub private_addresses: bool,
}

/// What is sent.
#[derive(Serialize)]
struct Payload {
    #[serde(rename = "type")]
    kind: EventKind,
    timestamp: String,
    data: JobView,
}

/// Sends what is due until `stopping` turns true.
pub async fn run(
    settings: Settings,
    store: Arc<dyn WebhookStore>,
    clock: Arc<dyn Clock>,
    mut stopping: watch::Receiver<bool>,
) {
    let guard = Guard { private_addresses: settings.private_addresses };
    let client = reqwest::Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .timeout(PATIENCE)
        .user_agent(concat!("graspd/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(guard)
        .build();
    let client = match client {
        Ok(client) => client,
        Err(error) => return tracing::error!(%error, "webhooks cannot be sent"),
    };
    let sender = Sender { settings, guard, client, store, clock };
    while !*stopping.borrow() {
        if !sender.send_one().await {
            // An error means that time is up, which is the usual case.
            let _ = timeout(IDLE, stopping.wait_for(|stop| *stop)).await;
        }
    }
}

struct Sender {
    settings: Settings,
    guard: Guard,
    client: reqwest::Client,
    store: Arc<dyn WebhookStore>,
    clock: Arc<dyn Clock>,
}

impl Sender {
    /// Sends what has been due the longest. `false` when there was nothing.
    async fn send_one(&self) -> bool {
        let delivery = match self.store.due_delivery(LEASE).await {
            Ok(Some(delivery)) => delivery,
            Ok(None) => return false,
            Err(error) => {
                tracing::warn!(%error, "the store did not say which webhooks are due");
                return false;
            }
        };
        let closed = match self.post(&delivery).await {
            Ok(()) => self.store.close_delivery(&delivery.id).await,
            Err(why) => self.try_again(&delivery, &why).await,
        };
        if let Err(error) = closed {
            // It is due again when the lease is over; the receiver knows a repetition by its id.
            tracing::warn!(%error, "the store did not take note of a webhook");
        }
        true
    }

    async fn try_again(&self, delivery: &Delivery, why: &str) -> Result<(), crate::queue::StoreError> {
        let (job, tries) = (delivery.job.id, delivery.attempts);
        let Some(pause) = (tries as usize).checked_sub(1).and_then(|index| PAUSES.get(index)) else {
            tracing::warn!(job.id = %job, webhook.tries = tries, why, "a webhook is given up");
            return self.store.close_delivery(&delivery.id).await;
        };
        tracing::info!(job.id = %job, webhook.tries = tries, why, "a webhook is tried again later");
        self.store.put_off(&delivery.id, *pause).await
    }

    async fn post(&self, delivery: &Delivery) -> Result<(), String> {
        let url = delivery.job.spec.webhook_url.as_deref().unwrap_or_default();
        let url = self.guard.checked(url)?;
        let payload = Payload {
            kind: delivery.event.kind,
            timestamp: iso8601(delivery.event.at),
            data: JobView::from(delivery.job.clone()),
        };
        let body = serde_json::to_string(&payload).map_err(|error| error.to_string())?;
        let seconds = self.clock.now().div_euclid(1000);
        let signatures: Vec<_> =
            self.settings.secrets.iter().map(|secret| secret.sign(&delivery.id, seconds, &body)).collect();
        let request = self
            .client
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", &delivery.id)
            .header("webhook-timestamp", seconds.to_string())
            .header("webhook-signature", signatures.join(" "))
            .body(body);
        let reply = request.send().await.map_err(|error| cause(&error))?;
        match reply.status() {
            status if status.is_success() => Ok(()),
            // The receiver is gone for good: that is taken as an answer.
            StatusCode::GONE => Ok(()),
            status => Err(format!("the receiver answered {status}")),
        }
    }
}

/// What is at the bottom of an error: the guard's words rather than "error sending request".
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), cause)
}

fn iso8601(at: UnixMillis) -> String {
    chrono::DateTime::from_timestamp_millis(at).map(|time| time.to_rfc3339()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_specification_wants_them() {
        assert_eq!(iso8601(1_789_000_000_000), "2026-09-10T00:26:40+00:00");
    }
}
