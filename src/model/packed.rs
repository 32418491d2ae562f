//! A forward pass over sequences of any lengths packed into one matrix of tokens: nothing is padded, and sequences that
//! begin alike share the keys and values of their beginning.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::{
    Batch, Block, Decoder, Head, Rotary,
    attention::Attention,
    cache::Kept,
    ops::{AttentionShape, Piece, accumulate, attend_packed, log_probabilities, rms_norm, swiglu},
    rotary::Turn,
};
use crate::checkpoint::Error;

/// Tokens of a long piece that are attended from at once.
pub(super) const TILE: usize = 64;
/// Logits held at once, in numbers: 64 MiB of f32.
const LOGITS: usize = 16 << 20;

/// Sequences packed as a tree: what several of them begin with stands there once.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    pieces: Vec<Piece>,
    /// The rows of each sequence's tokens, in runs from its first position on.
    paths: Vec<Vec<Range<usize>>>,
}

impl Packed {
    /// Packs sequences of token ids, which may be empty, and equal.
    pub fn new(sequences: &[&[u32]]) -> Self {
        let mut packed = Self { paths: vec![Vec::new(); sequences.len()], ..Self::default() };
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by_key(|&index| sequences[index]);
        packed.branch(sequences, &order, &[]);
        packed
    }

    /// Adds what stands behind `path`, with which all `members` begin; they are in lexicographic order.
    fn branch(&mut self, sequences: &[&[u32]], members: &[usize], path: &[Range<usize>]) {
        let depth: usize = path.iter().map(Range::len).sum();
        let ended = members.iter().take_while(|&&member| sequences[member].len() == depth).count();
        for &member in &members[..ended] {
            self.paths[member] = path.to_vec();
        }
        for group in members[ended..].chunk_by(|&a, &b| sequences[a][depth] == sequences[b][depth]) {
            let (Some(&first), Some(&last)) = (group.first(), group.last()) else { continue };
            let (first, last) = (&sequences[first][depth..], &sequences[last][depth..]);
            let shared = first.iter().zip(last).take_while(|(a, b)| a == b).count();
            let longer = self.grow(&first[..shared], path);
            self.branch(sequences, group, &longer);
        }
    }

    /// Adds tokens behind `path`, tile by tile; returns the path through them.
    fn grow(&mut self, tokens: &[u32], path: &[Range<usize>]) -> Vec<Range<usize>> {
        let mut path = path.to_vec();
        for tile in tokens.chunks(TILE) {
            let rows = self.tokens.len()..self.tokens.len() + tile.len();
            let position = path.iter().map(Range::len).sum::<usize>() as u32;
            self.tokens.extend_from_slice(tile);
            self.positions.extend(position..position + tile.len() as u32);
            self.pieces.push(Piece { queries: rows.clone(), seen: path.clone(), own: rows.start });
            match path.last_mut() {
                Some(last) if last.end == rows.start => last.end = rows.end,
                _ => path.push(rows),
            }
        }
        path
    }

    /// Tokens in all.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The rows of a sequence's tokens, in order.
    pub fn rows(&self, sequence: usize) -> impl DoubleEndedIterator<Item = usize> {
        self.paths[sequence].iter().flat_map(Clone::clone)
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
        let h = accumulate(attended, x)?;
        let normed = rms_norm(&h, &self.post_norm, self.eps)?;
        let (gate, up) = (self.mlp.gate_proj.forward(&normed)?, self.mlp.up_proj.forward(&normed)?);
        accumulate(self.mlp.down_proj.forward(&swiglu(&gate, &up)?)?, &h)
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
    /// log p(target) at rows of `hidden` [tokens, hidden]. Logits are computed once for a row, however many targets it
    /// has, and never for other rows.
    pub fn log_probabilities(&self, hidden: &Tensor, rows: &[u32], targets: &[u32]) -> Result<Vec<f64>> {
        let mut distinct = rows.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|&index| rows[index]);
        let mut all = vec![0.0; rows.len()];
        let mut left = order.as_slice();
        for chosen in distinct.chunks((LOGITS / self.weight.dim(0)?).max(1)) {
            let here = left.partition_point(|&index| Some(&rows[index]) <= chosen.last());
            let (mine, others) = left.split_at(here);
            left = others;
            let place = |row: u32| chosen.partition_point(|&other| other < row);
            let picks: Vec<(usize, u32)> = mine.iter().map(|&index| (place(rows[index]), targets[index])).collect();
            let logits = self.logits(&hidden.index_select(&Tensor::new(chosen, hidden.device())?, 0)?)?;
            for (&index, found) in mine.iter().zip(log_probabilities(&logits, &picks)?) {
                all[index] = found;
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sequences_begin_with_is_packed_once() {
        let long: Vec<u32> = (0..100).collect();
        let sequences: [&[u32]; 6] = [&[7, 1, 2], &[], &[7, 1, 3, 4], &long, &[7], &[7, 1, 3]];
        let packed = Packed::new(&sequences);
        assert_eq!(packed.len(), 100 + 5);
        for (index, sequence) in sequences.iter().enumerate() {
            let rows: Vec<usize> = packed.rows(index).collect();
            assert_eq!(rows.iter().map(|&row| packed.tokens[row]).collect::<Vec<_>>(), *sequence);
            assert_eq!(
                rows.iter().map(|&row| packed.positions[row] as usize).collect::<Vec<_>>(),
                (0..sequence.len()).collect::<Vec<_>>()
            );
        }
        let covered: Vec<usize> = packed.pieces.iter().flat_map(|piece| piece.queries.clone()).collect();
        assert_eq!(covered, (0..packed.len()).collect::<Vec<_>>(), "pieces cover the rows in order");
        assert!(packed.pieces.iter().all(|piece| piece.queries.len() <= TILE));
    }
}
