use axum::{Json, extract::State};

use crate::http::{ApiError, ApiState, CapabilitiesView, LimitsView, Problem, query::LONGEST_LIST};

/// Says what this service can do: architectures, methods, data sets, devices and limits.
#[utoipa::path(
    get, path = "/v1/capabilities", operation_id = "get_capabilities", tag = "service",
    responses(
        (status = 200, description = "What it can do", body = CapabilitiesView),
        (status = 500, description = "`internal`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn get_capabilities(
    State(state): State<ApiState>,
) -> Result<Json<CapabilitiesView>, ApiError> {
    let settings = state.settings;
    let looked = tokio::task::spawn_blocking(move || state.planner.capabilities()).await;
    let limits = LimitsView {
        queued_jobs: settings.queue.service,
        queued_jobs_of_tenant: settings.queue.tenant,
        requests_per_second: settings.rate.per_second.map(std::num::NonZeroU32::get),
        dataset_bytes: settings.largest_dataset,
        dataset_bytes_of_tenant: settings.datasets_of_tenant,
        body_bytes: crate::http::extract::LONGEST_BODY as u64,
        list: LONGEST_LIST,
        webhooks: settings.webhooks,
    };
    let capabilities = looked.map_err(|_| ApiError::Internal)?;
    Ok(Json(CapabilitiesView { capabilities, limits }))
}
