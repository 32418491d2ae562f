//! Events that wait to be told to somebody. The store files them with the event itself.

use std::time::Duration;

use async_trait::async_trait;

use super::{EventRecord, JobRecord, StoreError};

/// An event to be told, and how often that was tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The same in every try, so that the receiver knows a repetition.
    pub id: String,
    /// The job as it now stands.
    pub job: JobRecord,
    /// What happened to it.
    pub event: EventRecord,
    /// Tries so far, this one included.
    pub attempts: u32,
}

/// Deliveries that survive a restart.
#[async_trait]
pub trait WebhookStore: Send + Sync {
    /// Hands out the delivery that has been due the longest; another caller may get it after `lease` unless it is
    /// closed or put off before.
    async fn due_delivery(&self, lease: Duration) -> Result<Option<Delivery>, StoreError>;
    /// Tries a delivery again after a while.
    async fn put_off(&self, id: &str, delay: Duration) -> Result<(), StoreError>;
    /// Ends a delivery: it was taken, or given up.
    async fn close_delivery(&self, id: &str) -> Result<(), StoreError>;
}
