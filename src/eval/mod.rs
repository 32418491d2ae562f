//! Scores, and the texts they are taken on.

mod choices;
mod datasets;
mod detokenize;
mod documents;
mod encoder;
mod few_shot;
mod generation;
mod generative;
mod perplexity;
mod random;
mod rolling;
mod tasks;
mod windows;

pub use choices::{Asking, Exam, Tally, log_likelihoods};
pub use datasets::{Instruction, TrainingText, load_evaluation_text, load_text, load_training};
pub use documents::{Document, Documents, Item, Volume, next_batch};
pub use encoder::Encoder;
pub use generation::{Generation, READ_AT_ONCE, Speed, measure_speed};
pub use generative::{Form, Generative, Marking, Prompt};
pub use perplexity::{Perplexity, measure};
pub use rolling::Rolling;
pub use windows::{Tokens, Windows};
