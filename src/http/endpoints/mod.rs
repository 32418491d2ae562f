//! One endpoint a file: its handler and its entry in the API description.

pub(super) mod cancel_job;
pub(super) mod create_dataset;
pub(super) mod create_job;
pub(super) mod create_plan;
pub(super) mod delete_dataset;
pub(super) mod delete_job;
pub(super) mod get_archive;
pub(super) mod get_artifact;
pub(super) mod get_capabilities;
pub(super) mod get_dataset;
pub(super) mod get_job;
pub(super) mod get_livez;
pub(super) mod get_logs;
pub(super) mod get_metrics;
pub(super) mod get_openapi;
pub(super) mod get_page;
pub(super) mod get_readyz;
pub(super) mod get_report;
pub(super) mod get_version;
pub(super) mod list_artifacts;
pub(super) mod list_datasets;
pub(super) mod list_events;
pub(super) mod list_jobs;
pub(super) mod pause_job;
pub(super) mod resume_job;
