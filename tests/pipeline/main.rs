//! The method against numbers that torch and transformers computed on the same model and text, in double precision
//! where it matters, and whole jobs through the pipeline's front door.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests may fail the test")]

mod basis;
mod export;
mod families;
mod generation;
mod golden;
mod jobs;
mod lmeval;
mod memory;
mod peers;
mod recovery;
mod refine;
mod retraining;
mod support;
mod sweep;
mod training;
mod writing;
