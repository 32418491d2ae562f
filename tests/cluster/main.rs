//! Several processes on one PostgreSQL and one S3 server, both real: what machines leave for each other, and what is left
//! of it when any of them dies at any moment.
//!
//! `GRASPD_TEST_CLUSTER_KILLS=300 cargo test --test cluster` is the long form, `GRASPD_TEST_SEED` repeats a run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod failures;
mod objects;
#[path = "../servers/postgres.rs"]
mod postgres;
#[path = "../servers/s3.rs"]
mod s3;
mod site;
