//! Causal attention of sequences packed one behind the other, where a sequence may go on from the keys of another.

use std::ops::Range;

use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

use super::{AttentionShape, exp, is_fused, largest, numbers, sum, vectorised};
use crate::linalg::{Accumulate, MatMut, MatRef, matmul};

/// Neighbouring tokens of one sequence: each sees all of `seen`, and of the piece the tokens up to itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::model) struct Piece {
    /// Rows of the queries.
    pub(in crate::model) queries: Range<usize>,
    /// Rows of the keys that stand before the piece, in runs, from the sequence's first position on.
    pub(in crate::model) seen: Vec<Range<usize>>,
    /// Row of the piece's own first key.
    pub(in crate::model) own: usize,
}

impl Piece {
    /// Keys that stand before it.
    fn before(&self) -> usize {
        self.seen.iter().map(Range::len).sum()
    }

    /// Rows of all its keys, its own last, in runs of neighbours.
    fn keys(&self) -> Vec<Range<usize>> {
        let mut keys: Vec<Range<usize>> = self.seen.iter().filter(|run| !run.is_empty()).cloned().collect();
        let end = self.own + self.queries.len();
        match keys.last_mut() {
            Some(last) if last.end == self.own => last.end = end,
            _ => keys.push(self.own..end),
        }
        keys
    }

    /// Columns that the piece's token `t` sees, those of `seen` before its own.
    fn visible(&self, t: usize, window: Option<usize>) -> Range<usize> {
        let end = self.before() + t + 1;
        window.map_or(0, |window| end.saturating_sub(window))..end
    }
}

/// `q` [tokens, heads · d] against `k` and `v` [keys, `kv_heads` · d] to o as `q`. The pieces cover the queries in order.
pub(in crate::model) fn attend_packed(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    pieces: &[Piece],
    shape: AttentionShape,
) -> Result<Tensor> {
    if !is_fused(q) {
        return composed(q, k, v, pieces, shape);
    }
    let (q_guard, k_guard, v_guard) = (numbers(q)?, numbers(k)?, numbers(v)?);
    let inputs = Inputs { q: q_guard.get()?, k: k_guard.get()?, v: v_guard.get()?, shape };
    let mut o = vec![0.0; q.elem_count()];
    let (mut work, mut rest) = (Vec::with_capacity(pieces.len()), o.as_mut_slice());
    for piece in pieces {
        let (mine, others) = rest.split_at_mut(piece.queries.len() * shape.heads * shape.head_dim);
        work.push((piece, mine));
        rest = others;
    }
    work.into_par_iter().with_max_len(1).for_each(|(piece, o)| inputs.attend(piece, o));
    Tensor::from_vec(o, q.shape(), q.device())
}

struct Inputs<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    shape: AttentionShape,
}

impl Inputs<'_> {
    /// The piece's part of the output, [piece, heads · d]. The query heads that share a key head go as one matrix.
    fn attend(&self, piece: &Piece, o: &mut [f32]) {
        let AttentionShape { heads, kv_heads, head_dim: d, .. } = self.shape;
        let group = heads / kv_heads;
        let (length, keys) = (piece.queries.len(), piece.keys());
        let rows = group * length;
        let [mut q, mut out] = [(); 2].map(|()| vec![0.0; rows * d]);
        let mut scores = vec![0.0; rows * (piece.before() + length)];
        for kv_head in 0..kv_heads {
            // Row g · length + t is token t of the group's head g.
            for (row, q) in q.chunks_exact_mut(d).enumerate() {
                let (head, token) = (kv_head * group + row / length, piece.queries.start + row % length);
                q.copy_from_slice(&self.q[(token * heads + head) * d..][..d]);
            }
            self.probabilities(piece, (kv_head, &keys), &q, &mut scores);
            self.mix((kv_head, &keys), &scores, &mut out);
            for (row, out) in out.chunks_exact(d).enumerate() {
                let (head, token) = (kv_head * group + row / length, row % length);
                o[(token * heads + head) * d..][..d].copy_from_slice(out);
            }
        }
    }

    /// softmax(scale · q kᵀ) [rows, keys], nought where a token must not look.
    fn probabilities(&self, piece: &Piece, (kv_head, keys): (usize, &[Range<usize>]), q: &[f32], scores: &mut [f32]) {
        let d = self.shape.head_dim;
        let rows = q.len() / d;
        let stride = scores.len() / rows;
        let scale = 1.0 / (d as f32).sqrt();
        let q = MatRef { data: q, rows, columns: d, stride: d };
        let mut column = 0;
        for run in keys {
            let part = MatMut { data: &mut scores[column..], rows, columns: run.len(), stride };
            matmul(part, Accumulate::Replace, (q, false), (self.block(self.k, kv_head, run), true), scale);
            column += run.len();
        }
        for (row, scores) in scores.chunks_exact_mut(stride).enumerate() {
            softmax(scores, piece.visible(row % piece.queries.len(), self.shape.window));
        }
    }

    /// Probabilities times values, [rows, d].
    fn mix(&self, (kv_head, keys): (usize, &[Range<usize>]), scores: &[f32], out: &mut [f32]) {
        let d = self.shape.head_dim;
        let rows = out.len() / d;
        let stride = scores.len() / rows;
        let (mut column, mut accumulate) = (0, Accumulate::Replace);
        for run in keys {
            let p = MatRef { data: &scores[column..], rows, columns: run.len(), stride };
            let out = MatMut { data: &mut *out, rows, columns: d, stride: d };
            matmul(out, accumulate, (p, false), (self.block(self.v, kv_head, run), false), 1.0);
            (column, accumulate) = (column + run.len(), Accumulate::Add);
        }
    }

    /// Rows of one key head in an array [keys, `kv_heads` · d].
    fn block<'a>(&self, all: &'a [f32], head: usize, rows: &Range<usize>) -> MatRef<'a> {
        let AttentionShape { kv_heads, head_dim: d, .. } = self.shape;
        let data = &all[(rows.start * kv_heads + head) * d..];
        MatRef { data, rows: rows.len(), columns: d, stride: kv_heads * d }
    }
}

/// Scores of a row to probabilities, nought outside `visible`.
fn softmax(row: &mut [f32], visible: Range<usize>) {
    row[..visible.start].fill(0.0);
    row[visible.end..].fill(0.0);
    let seen = &mut row[visible];
    vectorised(
        #[inline(always)]
        || {
            let most = largest(seen);
            for x in seen.iter_mut() {
                *x = exp(*x - most);
            }
            let total = sum(seen);
            for x in seen.iter_mut() {
                *x /= total;
            }
        },
    );
}

/// The same out of candle's operations, with one mask over all keys, for devices other than the CPU.
fn composed(q: &Tensor, k: &Tensor, v: &Tensor, pieces: &[Piece], shape: AttentionShape) -> Result<Tensor> {
    let AttentionShape { heads, kv_heads, head_dim: d, window, .. } = shape;
    let (tokens, keys) = (q.dim(0)?, k.dim(0)?);
    let mut mask = vec![f32::NEG_INFINITY; tokens * keys];
    for piece in pieces {
        let rows: Vec<usize> = piece.keys().into_iter().flatten().collect();
        for (t, query) in piece.queries.clone().enumerate() {
            for key in &rows[piece.visible(t, window)] {
                mask[query * keys + key] = 0.0;
            }
        }
    }
    let mask = Tensor::from_vec(mask, (tokens, keys), q.device())?;
    // [keys, kv_heads · d] -> [heads, keys, d], key heads repeated for their group.
    let spread = |x: &Tensor| -> Result<Tensor> {
        let x = x.reshape((keys, kv_heads, 1, d))?.broadcast_as((keys, kv_heads, heads / kv_heads, d))?;
        x.contiguous()?.reshape((keys, heads, d))?.transpose(0, 1)?.contiguous()
    };
    // [tokens, heads · d] -> [heads, tokens, d]
    let q = q.reshape((tokens, heads, d))?.transpose(0, 1)?.contiguous()?;
    let scores = (q.matmul(&spread(k)?.transpose(1, 2)?.contiguous()?)? / (d as f64).sqrt())?.broadcast_add(&mask)?;
    let shares = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    let p = shares.broadcast_div(&shares.sum_keepdim(D::Minus1)?)?;
    p.matmul(&spread(v)?)?.transpose(0, 1)?.contiguous()?.reshape((tokens, heads * d))
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::model::Batch;

    #[test]
    fn pieces_agree_with_candle_in_any_arrangement() {
        // A trunk of 5 in two tiles, two branches on it, one on the end of the first of them, and a piece that goes on from
        // keys without queries of their own.
        let piece = |queries, seen: &[(usize, usize)], own| {
            let seen = seen.iter().map(|&(start, end)| start..end).collect();
            Piece { queries, seen, own }
        };
        let pieces = [
            piece(0..3, &[], 0),
            piece(3..5, &[(0, 3)], 3),
            piece(5..9, &[(0, 5)], 5),
            piece(9..10, &[(0, 5)], 9),
            piece(10..11, &[(0, 7), (9, 10)], 10),
            piece(11..13, &[(11, 14)], 14),
        ];
        for window in [None, Some(3)] {
            let batch = Batch { windows: 0, length: 0 };
            let shape = AttentionShape { batch, heads: 4, kv_heads: 2, head_dim: 8, window };
            let (q, k, v) = (random(1, &[13, 32]), random(2, &[16, 16]), random(3, &[16, 16]));
            let found = attend_packed(&q, &k, &v, &pieces, shape).unwrap();
            assert!(distance(&found, &composed(&q, &k, &v, &pieces, shape).unwrap()) < 1e-5);
        }
    }
}
