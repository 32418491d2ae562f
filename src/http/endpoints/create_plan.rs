use axum::{Json, extract::State};

use crate::{
    http::{ApiError, ApiState, PlanView, Problem, access::Caller, extract::SpecBody, submit},
    job::spec::JobBody,
};

/// Says what a job would do and take, without starting anything.
///
/// Of a model that is not on this machine yet, `config.json` and the headers of its weight files are read from the hub, and
/// nothing else. What would make the job fail is in `refusals`; where the hub does not answer, `notes` say so and the sizes
/// are null.
#[utoipa::path(
    post, path = "/v1/plans", operation_id = "create_plan", tag = "jobs",
    request_body = JobBody,
    responses(
        (status = 200, description = "The plan", body = PlanView),
        (status = 400, description = "`malformed_json`", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "`body_timeout`", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "`body_too_large`: over 64 KiB", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported_media_type`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_spec`: `field` names what is at fault", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`draining` or `store_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn create_plan(
    State(state): State<ApiState>,
    caller: Caller,
    SpecBody(spec): SpecBody,
) -> Result<Json<PlanView>, ApiError> {
    submit::check(&state, &caller, &spec).await?;
    if let Some(inputs) = &state.inputs {
        inputs.bring(&spec).await?;
    }
    let planned = tokio::task::spawn_blocking(move || {
        let plan = state.planner.plan(&spec);
        PlanView::new(spec, plan)
    });
    planned.await.map(Json).map_err(|_| ApiError::Internal)
}
