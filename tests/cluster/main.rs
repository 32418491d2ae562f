//! Several processes on one PostgreSQL and one S3 server, both real: what machines leave for each other, and what is left
//! of it when any of them dies at any moment.
//!
//! Between each process and both servers is a line that fails as networks do; one worker is in a network namespace of its own.
//!
//! `GRASPD_TEST_CLUSTER_KILLS=300 GRASPD_TEST_CLUSTER_PARTITIONS=50 GRASPD_TEST_CLUSTER_JOBS=200 cargo test --test cluster`
//! is the long form, `GRASPD_TEST_SEED` repeats a run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod failures;
mod namespace;
mod objects;
#[path = "../servers/port.rs"]
mod port;
#[path = "../servers/postgres.rs"]
mod postgres;
mod proxy;
#[path = "../servers/s3.rs"]
mod s3;
mod site;
