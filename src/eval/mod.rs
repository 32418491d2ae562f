//! Scores, and the texts they are taken on.

mod choices;
mod datasets;
mod encoder;
mod few_shot;
mod perplexity;
mod random;
mod tasks;
mod windows;

pub use choices::{Asking, Document, Exam, log_likelihoods};
pub use datasets::{Instruction, TrainingText, load_evaluation_text, load_text, load_training};
pub use encoder::Encoder;
pub use perplexity::{Perplexity, measure};
pub use windows::{Tokens, Windows};
