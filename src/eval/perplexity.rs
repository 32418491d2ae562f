use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::Windows;
use crate::{
    checkpoint::Error,
    model::{Decoder, Group, Observe, Start, Visitor},
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
    let groups = Group::cut(&windows.windows, windows.length, TOKENS_AT_ONCE);
    let mut scorer = Scorer { decoder, groups: &groups, total: Perplexity::default(), seen: 0, observe };
    decoder.visit(&groups, Start::Tokens, decoder.num_layers(), &mut scorer)?;
    Ok(scorer.total)
}

struct Scorer<'a, 'o> {
    decoder: &'a Decoder,
    groups: &'a [Group<'a>],
    total: Perplexity,
    /// Layers of groups that are done.
    seen: usize,
    observe: Observe<'o>,
}

impl Scorer<'_, '_> {
    /// In windows, of which each has gone through a share of the layers and, as one more, the head.
    fn report(&mut self) -> Result<(), Error> {
        self.seen += 1;
        let total: usize = self.groups.iter().map(|group| group.windows.len()).sum();
        let done = total * self.seen / (self.groups.len() * (self.decoder.num_layers() + 1));
        (self.observe)(done, total)
    }
}

impl Visitor for Scorer<'_, '_> {
    fn layer(&mut self, _: usize, _: usize, _: &Tensor, _: &Tensor) -> Result<(), Error> {
        // A long window takes seconds a layer: report inside it too.
        self.report()
    }

    fn end(&mut self, group: usize, hidden: Tensor) -> Result<(), Error> {
        let losses = self.decoder.head.losses(&hidden, &self.groups[group].windows, false)?.tokens;
        self.total.loss += losses.iter().sum::<f64>();
        self.total.tokens += losses.len() as u64;
        self.report()
    }
}
