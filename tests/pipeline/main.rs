//! The method against numbers that torch and transformers computed on the same model and text, in double precision
//! where it matters, and whole jobs through the pipeline's front door.

mod golden;
mod jobs;
mod support;
