//! The description of the API, generated from the handlers and views themselves.

use utoipa::OpenApi;

use super::{artifacts, jobs, system};

#[derive(OpenApi)]
#[openapi(
    info(title = "graspd", description = "Makes large language models smaller with GRASP: submit a job, follow it, download the compressed checkpoint."),
    paths(
        jobs::create_job,
        jobs::list_jobs,
        jobs::get_job,
        jobs::cancel_job,
        artifacts::get_report,
        artifacts::list_artifacts,
        artifacts::get_artifact,
        system::get_liveness,
        system::get_readiness,
        system::get_metrics,
        system::get_openapi,
        system::get_version,
    ),
    tags(
        (name = "jobs", description = "Submitting and following jobs"),
        (name = "artifacts", description = "What succeeded jobs published"),
        (name = "system", description = "Probes, metrics, versions"),
    )
)]
struct Api;

/// OpenAPI 3.1 in YAML; openapi.yaml at the top of the repository is this text.
pub fn openapi_yaml() -> String {
    Api::openapi().to_yaml().unwrap_or_default()
}
