use axum::Json;

use crate::http::VersionView;

/// Says which version this is.
#[utoipa::path(
    get, path = "/version", operation_id = "get_version", tag = "service",
    responses((status = 200, description = "Name and version", body = VersionView))
)]
pub(in crate::http) async fn get_version() -> Json<VersionView> {
    Json(VersionView { name: env!("CARGO_PKG_NAME").to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() })
}
