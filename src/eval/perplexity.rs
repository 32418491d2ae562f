use serde::{Deserialize, Serialize};

use super::Windows;
use crate::{
    checkpoint::Error,
    model::{Batch, Decoder, Observe},
};

/// Tokens that go through the model at once.
const TOKENS_AT_ONCE: usize = 2048;

/// Summed loss over scored tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// Σ −log p(token | the tokens before it in its window).
    pub loss: f64,
    /// Tokens scored: all but the first of each window.
    pub tokens: u64,
}

impl Perplexity {
    /// exp(loss / tokens).
    pub fn value(&self) -> f64 {
        (self.loss / self.tokens as f64).exp()
    }
}

/// Scores every window on its own; the protocol of the paper's tables: windows do not overlap and share no context.
///
/// # Errors
/// Whatever `observe` returns to end early, or the device's own failure.
pub fn measure(decoder: &Decoder, windows: &Windows, observe: Observe<'_>) -> Result<Perplexity, Error> {
    let mut total = Perplexity::default();
    let at_once = (TOKENS_AT_ONCE / windows.length.max(1)).max(1);
    let mut done = 0;
    for group in windows.windows.chunks(at_once) {
        let group: Vec<&[u32]> = group.iter().map(Vec::as_slice).collect();
        let batch = Batch { windows: group.len(), length: windows.length };
        let mut hidden = decoder.embed(&group)?;
        for layer in 0..decoder.blocks.len() {
            hidden = decoder.forward(hidden, layer..layer + 1, batch)?;
            // A long window takes seconds a layer: report inside it too.
            observe(done, windows.windows.len())?;
        }
        let losses = decoder.head.losses(&hidden, &group, false)?.tokens;
        total.loss += losses.iter().sum::<f64>();
        total.tokens += losses.len() as u64;
        done += group.len();
        observe(done, windows.windows.len())?;
    }
    Ok(total)
}
