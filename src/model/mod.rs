//! graspd's own decoder: Llama and its relatives, forward and backward, over candle tensors.
//!
//! The backward pass is written out, block by block: [`Block::forward_saving`] keeps what [`Block::backward`] needs,
//! and the gradients of chosen matrices go to a [`GradientSink`] as the pair (input, output gradient) they are the
//! product of. No graph is built, so no operation can cut it silently, and a statistic of either side costs no
//! second pass. Hidden states are [tokens, hidden], the tokens of a batch one window after the other.

mod adapter;
mod attention;
mod block;
mod cache;
pub mod config;
mod decoder;
mod device;
mod head;
mod linear;
mod loader;
mod ops;
mod packed;
mod passes;
mod rotary;
mod rounding;
mod states;
mod synth;
mod trainable;

pub use adapter::{Adapter, Dropout, Round};
pub use block::{Block, GradientSink, Norm, Saved};
pub use cache::Cache;
pub use config::{ARCHITECTURES, Config};
pub use decoder::{Decoder, Observe, Place, Residency, factor_names, module_name};
pub use device::open_device;
pub use head::{Head, LOGITS, Losses};
pub use linear::{Factors, Linear, Matrix, Side};
pub use ops::{AdamW, Moments, accumulate, add_gram, cosine_similarities, squared_norm, subtract};
pub use packed::Packed;
pub use passes::{Group, Start, Visitor};
pub use rotary::Rotary;
pub use states::States;
pub use synth::{Shape, synthesize};
pub use trainable::{Collect, Gradients, Parameter, Scope};

/// The windows of a batch: how many, and how many tokens each has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Windows.
    pub windows: usize,
    /// Tokens in each.
    pub length: usize,
}

impl Batch {
    /// Tokens in all.
    pub const fn tokens(self) -> usize {
        self.windows * self.length
    }
}
