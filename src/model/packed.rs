//! A forward pass over sequences of any lengths packed into one matrix of tokens: nothing is padded, and sequences that
//! begin alike share the keys and values of their beginning.

use candle_core::{Result, Tensor};

use super::{
    Batch, Block, Decoder, Head, Rotary,
    attention::Attention,
    cache::Kept,
    ops::{AttentionShape, Piece, attend_packed, cross_entropy, rms_norm, swiglu},
    rotary::Turn,
};
use crate::checkpoint::Error;

/// Tokens of a long piece that are attended from at once.
pub(super) const TILE: usize = 64;
/// Logits held at once, in numbers: 64 MiB of f32.
const LOGITS: usize = 16 << 20;

/// Sequences one behind the other.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    pieces: Vec<Piece>,
}

/// Where a trunk and its branches came to lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    trunk: usize,
    trunk_length: usize,
    branches: Vec<usize>,
}

impl Rows {
    /// The row of position `position` of the sequence that a branch ends.
    pub fn of(&self, branch: usize, position: usize) -> usize {
        match position.checked_sub(self.trunk_length) {
            None => self.trunk + position,
            Some(behind) => self.branches[branch] + behind,
        }
    }
}

impl Packed {
    /// Tokens so far.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Adds as many sequences as there are branches: each is the trunk and what follows it there. Parts may be empty.
    pub fn push<'a>(&mut self, trunk: &[u32], branches: impl Iterator<Item = &'a [u32]>) -> Rows {
        let start = self.tokens.len();
        for tile in trunk.chunks(TILE) {
            let row = self.tokens.len();
            self.push_piece(tile, start..row);
        }
        let seen = start..start + trunk.len();
        let rows = branches.map(|branch| {
            let row = self.tokens.len();
            self.push_piece(branch, seen.clone());
            row
        });
        Rows { trunk: start, trunk_length: trunk.len(), branches: rows.collect() }
    }

    fn push_piece(&mut self, tokens: &[u32], seen: std::ops::Range<usize>) {
        if tokens.is_empty() {
            return;
        }
        let (row, position) = (self.tokens.len(), seen.len() as u32);
        self.tokens.extend_from_slice(tokens);
        self.positions.extend(position..position + tokens.len() as u32);
        self.pieces.push(Piece { queries: row..row + tokens.len(), seen, own: row });
    }
}

impl Decoder {
    /// Makes it ready for sequences of up to `longest` tokens.
    ///
    /// # Errors
    /// The device's own failure.
    pub fn reach(&mut self, longest: usize) -> Result<()> {
        if self.rotary.positions() < longest {
            self.rotary = Rotary::new(&self.config, longest, &self.device)?;
        }
        Ok(())
    }

    /// Hidden states [tokens, hidden] behind the last layer; `observe` is called after each.
    ///
    /// # Errors
    /// Whatever `observe` returns to end early, or the device's own failure.
    pub fn forward_packed(
        &self,
        packed: &Packed,
        observe: &mut dyn FnMut() -> std::result::Result<(), Error>,
    ) -> std::result::Result<Tensor, Error> {
        forward_layers(self, (&packed.tokens, &packed.positions, &packed.pieces), &mut [], observe)
    }
}

/// Hidden states [tokens, hidden] of tokens at their positions behind the last layer; `kept` has what stands before them
/// for each layer, or is empty.
pub(super) fn forward_layers(
    decoder: &Decoder,
    (tokens, positions, pieces): (&[u32], &[u32], &[Piece]),
    kept: &mut [Kept],
    observe: &mut dyn FnMut() -> std::result::Result<(), Error>,
) -> std::result::Result<Tensor, Error> {
    let rotary = decoder.rotary.at(&Tensor::new(positions, &decoder.device)?)?;
    let mut hidden = decoder.embed(&[tokens])?;
    let mut kept = kept.iter_mut();
    for layer in 0..decoder.num_layers() {
        hidden = decoder.block(layer)?.forward_packed(&hidden, pieces, &rotary, kept.next())?;
        observe()?;
    }
    Ok(hidden)
}

impl Block {
    /// `x` [tokens, hidden] to the layer's output; `rotary` has the angles of each row.
    fn forward_packed(&self, x: &Tensor, pieces: &[Piece], rotary: &Rotary, kept: Option<&mut Kept>) -> Result<Tensor> {
        let normed = rms_norm(x, &self.input_norm, self.eps)?;
        let attended = self.attention.forward_packed(&normed, pieces, rotary, kept)?;
        let h = (x + attended)?;
        let normed = rms_norm(&h, &self.post_norm, self.eps)?;
        let (gate, up) = (self.mlp.gate_proj.forward(&normed)?, self.mlp.up_proj.forward(&normed)?);
        h + self.mlp.down_proj.forward(&swiglu(&gate, &up)?)?
    }
}

impl Attention {
    fn forward_packed(&self, x: &Tensor, pieces: &[Piece], rotary: &Rotary, kept: Option<&mut Kept>) -> Result<Tensor> {
        let (mut q, mut k, v) = (self.q_proj.forward(x)?, self.k_proj.forward(x)?, self.v_proj.forward(x)?);
        if let Some((q_norm, k_norm)) = &self.qk_norm {
            (q, k) = (self.norm_heads(&q, q_norm)?, self.norm_heads(&k, k_norm)?);
        }
        let batch = Batch { windows: 1, length: x.dim(0)? };
        let (q, k) = (rotary.apply(&q, batch, Turn::Forward)?, rotary.apply(&k, batch, Turn::Forward)?);
        let (k, v) = match kept {
            Some(kept) => kept.extend(&k, &v)?,
            None => (k, v),
        };
        self.o_proj.forward(&attend_packed(&q, &k, &v, pieces, AttentionShape { batch, ..self.shape })?)
    }
}

impl Head {
    /// log p(target) at rows of `hidden` [tokens, hidden]; the logits of other rows are never computed.
    pub fn log_probabilities(&self, hidden: &Tensor, rows: &[u32], targets: &[u32]) -> Result<Vec<f64>> {
        let at_once = (LOGITS / self.weight.dim(0)?).max(1);
        let mut all = Vec::with_capacity(rows.len());
        for (rows, targets) in rows.chunks(at_once).zip(targets.chunks(at_once)) {
            let chosen = hidden.index_select(&Tensor::new(rows, hidden.device())?, 0)?;
            all.extend(cross_entropy(&self.logits(&chosen)?, targets)?.iter().map(|loss| -loss));
        }
        Ok(all)
    }
}
