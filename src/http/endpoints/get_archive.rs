use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use crate::{
    artifact::{Artifact, ArtifactError, hexadecimal},
    http::{ApiError, ApiState, Problem, archive::Archive, extract::PathId, file},
    job::JobId,
};

/// Downloads everything a job has published as one tar, in a folder named by the job.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/archive", operation_id = "get_archive", tag = "artifacts",
    params(
        ("id" = String, Path, description = "The job's id"),
        ("If-None-Match" = Option<String>, Header, description = "Entity tags the client has", example = "\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\""),
    ),
    responses(
        (status = 200, description = "The tar", body = [u8], content_type = "application/x-tar",
            headers(("ETag" = String, description = "Of the checksums of all files"))),
        (status = 304, description = "The client has it"),
        (status = 404, description = "`job_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`job_not_finished`, or `job_not_succeeded` when it never will", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn get_archive(
    State(state): State<ApiState>,
    PathId(id): PathId,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    file::published(&state, id).await?;
    let artifacts = state.artifacts.list(id).await?.ok_or(ApiError::ArtifactNotFound)?;
    let tag = tag(&artifacts);
    let mut response = if file::is_known(&headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        tar(&state, id, artifacts).await?
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

fn tag(artifacts: &[Artifact]) -> String {
    let mut hasher = Sha256::new();
    for artifact in artifacts {
        hasher.update(format!("{}  {}\n", artifact.sha256, artifact.name));
    }
    format!("\"{}\"", hexadecimal(&hasher.finalize()))
}

async fn tar(state: &ApiState, id: JobId, artifacts: Vec<Artifact>) -> Result<Response, ApiError> {
    let mut files = Vec::with_capacity(artifacts.len());
    for artifact in artifacts {
        let found = state.artifacts.open(id, &artifact.name).await?;
        files.push(found.ok_or(ApiError::ArtifactNotFound)?);
    }
    let name = id.to_string();
    let archive =
        Archive::new(&name, files).map_err(|source| ArtifactError::Io { path: name.clone().into(), source })?;
    let fields: [(HeaderName, String); 3] = [
        (header::CONTENT_TYPE, "application/x-tar".to_owned()),
        (header::CONTENT_LENGTH, archive.length().to_string()),
        (header::CONTENT_DISPOSITION, file::disposition(&format!("{name}.tar"))),
    ];
    Ok((fields, archive.into_body()).into_response())
}
