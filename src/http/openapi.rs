//! The description of the API, put together from what stands beside each handler.

use utoipa::OpenApi;

use super::endpoints::{
    cancel_job, create_job, get_artifact, get_job, get_livez, get_metrics, get_openapi, get_readyz, get_report,
    get_version, list_artifacts, list_jobs,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "graspd",
        description = "Makes large language models smaller with GRASP (arXiv 2501.00339).\n\nEvery error is an RFC 9457 problem document with a stable `code`. Every reply carries `X-Request-Id`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/")),
    tags(
        (name = "jobs", description = "Submit, watch and cancel"),
        (name = "artifacts", description = "Fetch what a job has published"),
        (name = "service", description = "For operators"),
    ),
    paths(
        create_job::create_job,
        list_jobs::list_jobs,
        get_job::get_job,
        cancel_job::cancel_job,
        get_report::get_report,
        list_artifacts::list_artifacts,
        get_artifact::get_artifact,
        get_livez::get_livez,
        get_readyz::get_readyz,
        get_metrics::get_metrics,
        get_openapi::get_openapi,
        get_version::get_version,
    ),
)]
struct ApiDescription;

/// The description of the API as OpenAPI 3.1 in YAML, byte for byte the committed `openapi.yaml`.
///
/// # Panics
/// Never: the document is plain data, and a test writes it out.
#[expect(clippy::expect_used, reason = "the document is a constant of the build")]
pub fn openapi_yaml() -> String {
    ApiDescription::openapi().to_yaml().expect("the description is plain data")
}
