//! Scores, and the texts they are taken on.

mod datasets;
mod perplexity;
mod windows;

pub use datasets::{load_evaluation_text, load_text};
pub use perplexity::{Perplexity, measure};
pub use windows::{Tokens, Windows};
