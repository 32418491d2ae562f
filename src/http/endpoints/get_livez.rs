/// Says that the process answers.
#[utoipa::path(
    get, path = "/livez", operation_id = "get_livez", tag = "service",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain"))
)]
pub(in crate::http) async fn get_livez() -> &'static str {
    "ok\n"
}
