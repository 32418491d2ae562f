//! Forward passes that go on behind the tokens before, whose keys and values are kept: how text is generated.

use candle_core::{Device, Result, Tensor};

use super::{
    Config, Decoder,
    ops::Piece,
    packed::{TILE, forward_layers},
};
use crate::checkpoint::Error;

/// Keys and values of the tokens so far, in every layer.
pub struct Cache {
    layers: Vec<Kept>,
    length: usize,
}

/// Those of one layer: the first `length` rows of [capacity, `kv_heads` · d].
pub(super) struct Kept {
    keys: Tensor,
    values: Tensor,
    length: usize,
}

impl Kept {
    fn new(config: &Config, capacity: usize, device: &Device) -> Result<Self> {
        let empty =
            || Tensor::zeros((capacity, config.num_kv_heads * config.head_dim), candle_core::DType::F32, device);
        Ok(Self { keys: empty()?, values: empty()?, length: 0 })
    }

    /// Adds those of new tokens, and gives those of all.
    pub(super) fn extend(&mut self, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        let start = self.length;
        self.length += keys.dim(0)?;
        let put = |all: &Tensor, new: &Tensor| -> Result<Tensor> {
            all.slice_set(&new.contiguous()?, 0, start)?;
            all.narrow(0, 0, self.length)
        };
        Ok((put(&self.keys, keys)?, put(&self.values, values)?))
    }
}

impl Decoder {
    /// An empty cache for up to `capacity` tokens, within reach of which the decoder must be.
    ///
    /// # Errors
    /// The device's own failure.
    pub fn cache(&self, capacity: usize) -> Result<Cache> {
        let layer = |_| Kept::new(&self.config, capacity, &self.device);
        Ok(Cache { layers: (0..self.num_layers()).map(layer).collect::<Result<_>>()?, length: 0 })
    }

    /// Hidden states [tokens, hidden] of `tokens`, which follow those in the cache and join them; `observe` is called after
    /// each layer.
    ///
    /// # Errors
    /// Whatever `observe` returns to end early, or the device's own failure, of which a cache that is full is one.
    pub fn forward_cached(
        &self,
        tokens: &[u32],
        cache: &mut Cache,
        observe: &mut dyn FnMut() -> std::result::Result<(), Error>,
    ) -> std::result::Result<Tensor, Error> {
        let past = cache.length;
        let mut pieces = Vec::with_capacity(tokens.len().div_ceil(TILE));
        for row in (0..tokens.len()).step_by(TILE) {
            let queries = row..tokens.len().min(row + TILE);
            pieces.push(Piece { queries, seen: std::iter::once(0..past + row).collect(), own: past + row });
        }
        let positions: Vec<u32> = (past..past + tokens.len()).map(|position| position as u32).collect();
        cache.length += tokens.len();
        forward_layers(self, (tokens, &positions, &pieces), &mut cache.layers, observe)
    }
}
