use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::job::{Capabilities, JobSpec, Plan, spec::JobBody};

/// Marks a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlanObject {
    /// The only value.
    Plan,
}

/// What a job would do and take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlanView {
    /// Always `plan`.
    pub object: PlanObject,
    /// The job with every default filled in.
    #[schema(value_type = JobBody)]
    pub spec: JobSpec,
    /// What it would do.
    #[serde(flatten)]
    pub plan: Plan,
}

impl PlanView {
    pub(in crate::http) const fn new(spec: JobSpec, plan: Plan) -> Self {
        Self { object: PlanObject::Plan, spec, plan }
    }
}

/// What this service can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CapabilitiesView {
    /// What the method can do, on this machine.
    #[serde(flatten)]
    pub capabilities: Capabilities,
    /// What is refused beyond.
    pub limits: LimitsView,
}

/// Limits of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Limits)]
pub struct LimitsView {
    /// Jobs that may wait in the whole service.
    pub queued_jobs: u32,
    /// Jobs of one tenant that may wait.
    pub queued_jobs_of_tenant: u32,
    /// Requests of one key or one address; null for no limit.
    pub requests_per_second: Option<u32>,
    /// Bytes of one uploaded data set.
    pub dataset_bytes: u64,
    /// Bytes of all uploaded data sets of a tenant.
    pub dataset_bytes_of_tenant: u64,
    /// Bytes of a job's body.
    pub body_bytes: u64,
    /// Entries in a page.
    pub list: u32,
    /// Whether a job may name a `webhook_url`.
    pub webhooks: bool,
}
