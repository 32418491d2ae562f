//! One endpoint a file: its handler and its entry in the API description.

pub(super) mod cancel_job;
pub(super) mod create_job;
pub(super) mod get_artifact;
pub(super) mod get_job;
pub(super) mod get_livez;
pub(super) mod get_metrics;
pub(super) mod get_openapi;
pub(super) mod get_readyz;
pub(super) mod get_report;
pub(super) mod get_version;
pub(super) mod list_artifacts;
pub(super) mod list_jobs;
