use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
};

use crate::{
    http::{
        ApiError, ApiState, DatasetView, Problem,
        access::Caller,
        query::NameQuery,
        view::{JsonLines, Text},
    },
    job::TextFormat,
    queue::DatasetRecord,
};

/// Uploads a text for calibration, recovery or evaluation.
///
/// The body is the text itself. Jobs name it by its id, as in `"dataset": "ds_…"`.
#[utoipa::path(
    post, path = "/v1/datasets", operation_id = "create_dataset", tag = "datasets",
    params(("name" = Option<String>, Query, description = "What you call it", min_length = 1, max_length = 255, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$", example = "support tickets")),
    request_body(content((Text = "text/plain"), (JsonLines = "application/jsonl", example = json!("{\"text\": \"The quick brown fox\"}\n")))),
    responses(
        (status = 201, description = "It is on disk", body = DatasetView,
            headers(("Location" = String, description = "Path of the data set"))),
        (status = 400, description = "`invalid_query`", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "`body_timeout`", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "`dataset_too_large`: over the limit of one text, or of all of yours", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported_media_type`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_text`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`draining` or `store_unavailable`", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "`disk_full`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn create_dataset(
    State(state): State<ApiState>,
    caller: Caller,
    NameQuery(name): NameQuery,
    request: Request,
) -> Result<impl IntoResponse, ApiError> {
    if state.draining.is_draining() {
        return Err(ApiError::Draining);
    }
    let format = format(request.headers()).ok_or(ApiError::UnsupportedText)?;
    let used = state.datasets.dataset_bytes(&caller.tenant).await?;
    let left = state.settings.datasets_of_tenant.saturating_sub(used).min(state.settings.largest_dataset);
    let id = state.ids.dataset_id();
    let received = state.uploads.receive(&id, format, request.into_body(), left).await?;
    let name = name.unwrap_or_else(|| id.to_string());
    let record = DatasetRecord {
        id,
        tenant: caller.tenant,
        name,
        format,
        bytes: received.bytes,
        sha256: received.sha256,
        created_at: 0,
    };
    let record = state.datasets.add_dataset(&record).await?;
    tracing::info!(dataset.id = %record.id, dataset.bytes = record.bytes, "data set uploaded");
    let location = format!("/v1/datasets/{}", record.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(DatasetView::from(record))))
}

fn format(headers: &HeaderMap) -> Option<TextFormat> {
    let declared = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    match declared.split(';').next()?.trim().to_ascii_lowercase().as_str() {
        "text/plain" => Some(TextFormat::Txt),
        "application/jsonl" | "application/x-ndjson" | "application/x-jsonlines" => Some(TextFormat::Jsonl),
        _ => None,
    }
}
