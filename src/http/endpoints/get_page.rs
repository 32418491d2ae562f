use axum::{
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::http::{ApiError, file, page};

/// Nothing but what comes from this server; nobody may put the page into a frame.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The page to watch jobs on. It is no part of the API, which it only uses.
pub(in crate::http) async fn get_page(headers: HeaderMap) -> Result<Response, ApiError> {
    serve(&headers, page::INDEX)
}

/// A file of the page.
pub(in crate::http) async fn get_asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    serve(&headers, &name)
}

fn serve(headers: &HeaderMap, name: &str) -> Result<Response, ApiError> {
    let asset = page::asset(name).ok_or(ApiError::NotFound)?;
    let mut response = if file::is_known(headers, &asset.tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, asset.kind)], asset.content).into_response()
    };
    let fields = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&asset.tag) {
        fields.insert(header::ETAG, tag);
    }
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    fields.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    fields.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}
