use axum::{
    extract::{Request, State},
    response::Response,
};

use crate::http::{ApiError, ApiState, Problem, extract::ArtifactPath, file, query::FileQuery};

/// Downloads a published file, whole or in a range. HEAD gives its length and its entity tag.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/artifacts/{name}", operation_id = "get_artifact", tag = "artifacts",
    params(
        ("id" = String, Path, description = "The job's id"),
        ("name" = String, Path, description = "The file's name; a slash in it may be percent-encoded or not"),
        ("redirect" = Option<String>, Query, description = "`1`: be sent to a signed URL of the object store, where the file lies in one; else the file comes as usual", pattern = "^(0|1|true|false)$", example = "0"),
        ("Range" = Option<String>, Header, description = "One range of bytes", example = "bytes=0-1023"),
        ("If-None-Match" = Option<String>, Header, description = "Entity tags the client has", example = "\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\""),
        ("If-Range" = Option<String>, Header, description = "The range only if the file still has this entity tag, else all of it", example = "\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\""),
    ),
    responses(
        (status = 200, description = "The file", body = [u8], content_type = "application/octet-stream",
            headers(("ETag" = String, description = "The SHA-256 of the file"))),
        (status = 206, description = "The range", body = [u8], content_type = "application/octet-stream"),
        (status = 304, description = "The client has it"),
        (status = 307, description = "The file is at `Location`, for ten minutes", headers(("Location" = String, description = "The signed URL"))),
        (status = 400, description = "`invalid_query`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`job_not_found` or `artifact_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`job_not_finished`, or `job_not_succeeded` when it never will", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`precondition_failed`", body = Problem, content_type = "application/problem+json"),
        (status = 416, description = "`range_not_satisfiable`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn get_artifact(
    State(state): State<ApiState>,
    ArtifactPath { id, name }: ArtifactPath,
    FileQuery { redirect }: FileQuery,
    request: Request,
) -> Result<Response, ApiError> {
    if redirect && let Some(response) = file::redirect(&state, id, &name).await? {
        return Ok(response);
    }
    file::serve(&state, id, &name, request).await
}
