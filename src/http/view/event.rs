use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ListObject, seconds};
use crate::{job::EventKind, queue::EventRecord};

/// Something that happened to a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Event, example = json!({
    "object": "job.event", "seq": 4, "type": "job.progress", "created_at": 1_789_000_042,
    "data": {"stage": "gradients", "done": 12, "total": 32, "layer": 21}
}))]
pub struct EventView {
    /// Always `job.event`.
    pub object: EventObject,
    /// Its number in the job: 1, 2, 3, … without a gap.
    #[schema(minimum = 1)]
    pub seq: u64,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// When, in seconds since 1970-01-01T00:00:00Z.
    pub created_at: i64,
    /// `job.progress`: stage, done, total, layer, part and training; `job.started`: attempt; `job.failed`: code and message.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

/// Marks an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum EventObject {
    /// The only value.
    #[serde(rename = "job.event")]
    Event,
}

/// Events of a job, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventList {
    /// Always `list`.
    pub object: ListObject,
    /// The events.
    pub data: Vec<EventView>,
    /// Whether there are more: ask again with `after` set to the last `seq`.
    pub has_more: bool,
}

impl From<EventRecord> for EventView {
    fn from(event: EventRecord) -> Self {
        Self {
            object: EventObject::Event,
            seq: event.seq,
            kind: event.kind,
            created_at: seconds(event.at),
            data: event.data,
        }
    }
}
