//! The API over a real socket, a real queue and real folders; no workers, so that a job stays where a test puts it.

mod app;
mod artifacts;
mod jobs;
mod openapi;
mod robustness;
mod system;
