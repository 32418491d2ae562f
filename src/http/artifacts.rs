//! `/v1/jobs/{id}/artifacts` and the report.

use axum::{
    Json,
    extract::{Path, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use percent_encoding::percent_decode_str;
use tower::ServiceExt as _;
use tower_http::services::ServeFile;

use super::{AppState, ArtifactView, List, Problem, jobs::parse_id};
use crate::job::{JobId, Report, Status};

const REPORT: &str = "report.json";

/// The files of a succeeded job.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/artifacts", operation_id = "listArtifacts", tag = "artifacts",
    params(("id" = String, Path, description = "The job's id")),
    responses(
        (status = 200, description = "All files; empty until the job has succeeded", body = List<ArtifactView>),
        (status = 404, description = "`job_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable` or `artifacts_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list_artifacts(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<List<ArtifactView>>, Problem> {
    let (id, status) = find(&state, &id).await?;
    let artifacts = match status {
        Status::Succeeded => state.artifacts.list(id).await?.unwrap_or_default(),
        Status::Queued | Status::Running | Status::Failed | Status::Cancelled => Vec::new(),
    };
    Ok(Json(List::new(artifacts.into_iter().map(|artifact| ArtifactView::new(id, artifact)).collect(), false)))
}

/// A file of a succeeded job, whole or in part (Range, If-Range, If-None-Match).
#[utoipa::path(
    get, path = "/v1/jobs/{id}/artifacts/{name}", operation_id = "getArtifact", tag = "artifacts",
    params(("id" = String, Path, description = "The job's id"), ("name" = String, Path, description = "The file's name; a slash in it may be percent-encoded")),
    responses(
        (status = 200, description = "The file", body = Vec<u8>, content_type = "application/octet-stream", headers(("ETag" = String, description = "The file's SHA-256"))),
        (status = 206, description = "The part that Range asks for", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "The caller has it already (If-None-Match)"),
        (status = 404, description = "`job_not_found` or `artifact_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`job_not_finished`", body = Problem, content_type = "application/problem+json"),
        (status = 416, description = "`range_not_satisfiable`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable` or `artifacts_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_artifact(
    State(state): State<AppState>,
    Path((id, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    // axum has decoded the path once; a name that was encoded with its slashes is the same name.
    let name = percent_decode_str(&name).decode_utf8().map_err(|_| artifact_not_found(&name))?.into_owned();
    serve(&state, &id, &name, request).await
}

/// The report of a succeeded job: the same as its file report.json.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/report", operation_id = "getReport", tag = "jobs",
    params(("id" = String, Path, description = "The job's id")),
    responses(
        (status = 200, description = "What was done and what came of it", body = Report),
        (status = 404, description = "`job_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`job_not_finished`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable` or `artifacts_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_report(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let mut response = serve(&state, &id, REPORT, request).await?;
    response.headers_mut().remove(header::CONTENT_DISPOSITION);
    Ok(response)
}

async fn find(state: &AppState, id: &str) -> Result<(JobId, Status), Problem> {
    let record = state.store.get(parse_id(id)?).await?.ok_or_else(Problem::job_not_found)?;
    Ok((record.id, record.status))
}

fn artifact_not_found(name: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "artifact_not_found", format!("the job has no file {name:?}"))
}

async fn serve(state: &AppState, id: &str, name: &str, request: Request) -> Result<Response, Problem> {
    let (id, status) = find(state, id).await?;
    if status != Status::Succeeded {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "job_not_finished",
            format!("the job is {status}: only a succeeded job has files"),
        ));
    }
    let (path, artifact) = state.artifacts.locate(id, name).await?.ok_or_else(|| artifact_not_found(name))?;
    let tag = format!("\"{}\"", artifact.sha256);
    if has(&request, header::IF_NONE_MATCH, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let response = ServeFile::new(path).oneshot(with_range(request, &tag)).await;
    let mut response = response.unwrap_or_else(|never| match never {}).map(axum::body::Body::new);
    if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
        let problem = Problem::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "range_not_satisfiable",
            format!("the file has {} bytes", artifact.bytes),
        );
        return Err(problem);
    }
    let file_name = artifact.name.rsplit('/').next().unwrap_or(&artifact.name);
    insert(&mut response, header::ETAG, &tag);
    insert(&mut response, header::CONTENT_DISPOSITION, &format!("attachment; filename=\"{file_name}\""));
    insert(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    Ok(response)
}

/// Whether a list of entity tags names `tag`, or anything.
fn has(request: &Request, name: HeaderName, tag: &str) -> bool {
    let values = request.headers().get_all(name);
    let tags = values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    tags.map(str::trim)
        .any(|candidate| candidate == tag || candidate == "*" || candidate.strip_prefix("W/") == Some(tag))
}

/// The request with conditions on time and on other versions resolved: published files never change, so the entity tag
/// decides, and a Range for another version asks for the whole.
fn with_range(mut request: Request, tag: &str) -> Request {
    let headers = request.headers_mut();
    let other_version = headers.get(header::IF_RANGE).is_some_and(|value| value.as_bytes() != tag.as_bytes());
    if other_version {
        headers.remove(header::RANGE);
    }
    for name in [header::IF_RANGE, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE] {
        headers.remove(name);
    }
    request
}

fn insert(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
