//! Scores, and the texts they are taken on.

mod datasets;
mod perplexity;
mod windows;

pub use datasets::{Instruction, TrainingText, load_evaluation_text, load_text, load_training};
pub use perplexity::{Perplexity, measure};
pub use windows::{Encoder, Tokens, Windows};
