//! graspd makes large language models smaller with GRASP (arXiv 2501.00339): it finds the transformer layers that
//! change their input least, keeps of their weight matrices the few singular triplets that matter, scores the model
//! before and after, and publishes the compressed checkpoint.
//!
//! | layer | what it does |
//! |---|---|
//! | [`job`] | the words: spec, state, report |
//! | [`clock`] | time and ids, passed as arguments |
//! | [`linalg`] | decompositions |
//! | [`checkpoint`] | model files: hub, folders, safetensors |
//! | [`model`] | the decoder, forward and backward |
//! | [`eval`] | scores and the texts they are taken on |
//! | [`pipeline`] | the method, stage by stage |
//! | [`queue`] | the durable queue |
//! | [`artifact`] | published folders |
//! | [`worker`] | slots, child processes, leases |
//! | [`http`] | the REST surface |
//! | [`cli`] | one file per subcommand |
//! | [`fault`] | where tests may end the process |
//!
//! Invariants: `pipeline` and everything below it never awaits (but for transfers from the hub, on a thread of their
//! own inside `checkpoint`) and never sees a database; `http` never sees a tensor;
//! only [`config`] reads the environment; only [`app`] wires layers together. `tests/tidy.rs` checks them.

pub mod app;
pub mod artifact;
pub mod checkpoint;
pub mod cli;
pub mod clock;
pub mod config;
pub mod eval;
pub mod fault;
pub mod http;
pub mod job;
pub mod linalg;
pub mod model;
pub mod pipeline;
pub mod queue;
pub mod telemetry;
pub mod worker;
