//! Scores, and the texts they are taken on.

mod choices;
mod datasets;
mod detokenize;
mod documents;
mod encoder;
mod few_shot;
mod generation;
mod perplexity;
mod random;
mod rolling;
mod tasks;
mod windows;

pub use choices::{Asking, Exam, Tally, log_likelihoods, next_batch};
pub use datasets::{Instruction, TrainingText, load_evaluation_text, load_text, load_training};
pub use documents::{Document, Documents};
pub use encoder::Encoder;
pub use generation::{Generation, Speed, measure_speed};
pub use perplexity::{Perplexity, measure};
pub use rolling::Rolling;
pub use windows::{Tokens, Windows};
