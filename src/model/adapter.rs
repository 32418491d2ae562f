//! Low-rank adapters (`LoRA`, arXiv 2106.09685): W + scale · B A in place of W, where only A and B are trained.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use candle_core::{Result, Tensor};

use super::ops::{accumulate, dropout, scale};

/// What is added to a matrix.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// A [rank, in].
    pub down: Tensor,
    /// B [out, rank].
    pub up: Tensor,
    /// alpha / rank.
    pub scale: f64,
    /// Of the adapter's input.
    pub dropout: Dropout,
}

/// Gradients of an adapter, of the shapes of its parts.
pub(super) struct AdapterGradients {
    pub(super) down: Tensor,
    pub(super) up: Tensor,
}

/// Dropout that is the same in the forward and the backward pass of a round.
#[derive(Clone, Debug)]
pub struct Dropout {
    probability: f32,
    /// Tells the adapters of a model apart.
    stream: u64,
    round: Round,
}

/// The round that all adapters of a model are in: its seed while they train, nought while they are used.
#[derive(Clone, Debug, Default)]
pub struct Round(Arc<AtomicU64>);

impl Round {
    /// Begins a round of training.
    pub fn begin(&self, seed: u64) {
        self.0.store(seed | 1, Ordering::Relaxed);
    }

    /// Nothing is dropped from here on.
    pub fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Dropout {
    /// Dropout with `probability` for the adapter with the number `stream`.
    pub const fn new(probability: f32, stream: u64, round: Round) -> Self {
        Self { probability, stream, round }
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        match self.round.0.load(Ordering::Relaxed) {
            0 => Ok(x.clone()),
            _ if self.probability <= 0.0 => Ok(x.clone()),
            // An odd factor spreads neighbouring streams over all bits.
            round => dropout(x, self.probability, round ^ self.stream.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        }
    }
}

impl Adapter {
    /// Adds scale · B A dropout(x) to `y` [tokens, out], for `x` [tokens, in].
    pub(super) fn add_forward(&self, x: &Tensor, y: Tensor) -> Result<Tensor> {
        let inner = scale(self.dropout.apply(x)?.matmul(&self.down.t()?)?, self.scale)?;
        accumulate(y, &inner.matmul(&self.up.t()?)?)
    }

    /// Adds the adapter's share of ∂L/∂x to `gx` [tokens, in], for `gy` [tokens, out].
    pub(super) fn add_backward(&self, gy: &Tensor, gx: Tensor) -> Result<Tensor> {
        accumulate(gx, &self.dropout.apply(&self.inner_gradient(gy)?.matmul(&self.down)?)?)
    }

    /// ∂L/∂A and ∂L/∂B from what the matrix got and the gradient of what it gave; and `gx` with the adapter's share of ∂L/∂x.
    pub(super) fn backward(&self, x: &Tensor, gy: &Tensor, gx: Tensor) -> Result<(AdapterGradients, Tensor)> {
        let x = self.dropout.apply(x)?;
        let inner = scale(x.matmul(&self.down.t()?)?, self.scale)?;
        let g_inner = self.inner_gradient(gy)?;
        let gx = accumulate(gx, &self.dropout.apply(&g_inner.matmul(&self.down)?)?)?;
        Ok((AdapterGradients { down: g_inner.t()?.matmul(&x)?, up: gy.t()?.matmul(&inner)? }, gx))
    }

    /// ∂L/∂(A x) [tokens, rank].
    fn inner_gradient(&self, gy: &Tensor) -> Result<Tensor> {
        scale(gy.matmul(&self.up)?, self.scale)
    }

    /// `weight` [out, in] with the adapter in it: of the same shape.
    pub fn merged(&self, weight: &Tensor) -> Result<Tensor> {
        weight + (self.up.matmul(&self.down)? * self.scale)?
    }
}
