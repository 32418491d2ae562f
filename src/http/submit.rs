//! How a job is taken, and what it must pass beyond its own grammar before that.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{ApiError, ApiState, JobView, access::Caller, idempotency::IdempotencyKey, prefer::Prefer};
use crate::{
    job::{JobSpec, ModelSource, SpecError, Status, spec::Kind},
    queue::{Origin, Submission, Submitted},
};

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What comes with a job beside its spec.
pub(super) struct Sent {
    pub(super) caller: Caller,
    pub(super) key: IdempotencyKey,
    pub(super) prefer: Prefer,
    /// The request it came with.
    pub(super) origin: Origin,
}

/// Puts a job into the queue, and answers with it as it then stands.
pub(super) async fn take(state: &ApiState, sent: Sent, spec: JobSpec) -> Result<Response, ApiError> {
    let Sent { caller, key, prefer, origin } = sent;
    check(state, &caller, &spec).await?;
    if state.artifacts.is_full().await? {
        return Err(ApiError::DiskFull);
    }
    let idempotency = key.sent_with(&spec);
    let id = state.ids.job_id();
    let submission = Submission { id, spec, tenant: caller.tenant, idempotency, limits: state.settings.queue, origin };
    let (record, replayed) = match state.store.enqueue(&submission).await? {
        Submitted::Accepted(record) => (record, false),
        Submitted::Replayed(record) => (record, true),
        Submitted::KeyReused => return Err(ApiError::IdempotencyKeyReused),
        Submitted::TenantFull => return Err(ApiError::QueueFull { whose: "the tenant" }),
        Submitted::ServiceFull => return Err(ApiError::QueueFull { whose: "the service" }),
    };
    tracing::info!(job.id = %record.id, job.model = %record.spec.model, replayed, "job submitted");
    let location = format!("/v1/jobs/{}", record.id);
    let record = prefer.wait(state, record.id, |record| record.status.is_terminal()).await?;
    let mut response =
        (StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(JobView::from(record))).into_response();
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(prefer.apply(response))
}

/// Refuses a job that this service cannot take now, or not from this caller.
pub(super) async fn check(state: &ApiState, caller: &Caller, spec: &JobSpec) -> Result<(), ApiError> {
    if state.draining.is_draining() {
        return Err(ApiError::Draining);
    }
    if spec.webhook_url.is_some() && !state.settings.webhooks {
        return Err(wrong(
            "webhook_url",
            "this service sends no webhooks: its operator sets GRASPD_WEBHOOKS to allow them",
        ));
    }
    check_model(state, caller, spec).await?;
    check_datasets(state, caller, spec).await
}

/// A model that another job made must be the caller's own, and there.
async fn check_model(state: &ApiState, caller: &Caller, spec: &JobSpec) -> Result<(), ApiError> {
    let ModelSource::Job(id) = spec.model else { return Ok(()) };
    let refuse = |message: String| Err(wrong("model", message));
    let found = state.store.get(id).await?.filter(|record| record.tenant == caller.tenant);
    let Some(record) = found else {
        return refuse(format!("there is no job {id}: GET /v1/jobs lists yours"));
    };
    if record.status != Status::Succeeded {
        return refuse(format!("the job {id} is {}: its checkpoint can be used once it has succeeded", record.status));
    }
    if record.spec.kind == Kind::Evaluate {
        return refuse(format!(
            "the job {id} only scored a model and has no checkpoint: name the model that it scored"
        ));
    }
    match state.artifacts.list(id).await? {
        Some(_) => Ok(()),
        None => refuse(format!("the files of the job {id} were deleted")),
    }
}

/// Uploaded texts must be the caller's own.
pub(super) async fn check_datasets(state: &ApiState, caller: &Caller, spec: &JobSpec) -> Result<(), ApiError> {
    for (field, id) in spec.uploaded() {
        let found = state.datasets.dataset(&id).await?;
        if found.is_none_or(|dataset| dataset.tenant != caller.tenant) {
            return Err(wrong(&field, format!("there is no data set {id}: GET /v1/datasets lists yours")));
        }
    }
    Ok(())
}

fn wrong(field: &str, message: impl Into<String>) -> ApiError {
    ApiError::InvalidSpec(SpecError { field: field.to_owned(), message: message.into() })
}
