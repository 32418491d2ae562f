use std::sync::LazyLock;

use axum::{http::header, response::IntoResponse};

use crate::http::openapi_yaml;

static DOCUMENT: LazyLock<String> = LazyLock::new(openapi_yaml);

/// This description.
#[utoipa::path(
    get, path = "/openapi.yaml", operation_id = "get_openapi", tag = "service",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value, content_type = "application/yaml"))
)]
pub(in crate::http) async fn get_openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/yaml")], DOCUMENT.as_str())
}
