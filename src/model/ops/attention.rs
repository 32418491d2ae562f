//! Causal attention with grouped heads: o = softmax(scale · q kᵀ) v.
//!
//! On the CPU a head goes in tiles of query rows against the keys they may see, so that the scores of a whole window
//! never exist and the half above the diagonal is never computed; the backward pass takes the probabilities from
//! the scores and each row's log-sum-exp again. Elsewhere it is composed of candle's operations: products in the type of
//! the states, scores and probabilities in f32.

use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

use super::{exp, is_fused, largest, numbers, sum, sum_of, vectorised};
use crate::{
    linalg::{Accumulate, MatMut, MatRef, matmul},
    model::Batch,
};

/// Query rows in a tile.
const TILE: usize = 128;

/// Heads, widths and reach of an attention.
#[derive(Clone, Copy, Debug)]
pub(in crate::model) struct AttentionShape {
    pub(in crate::model) batch: Batch,
    pub(in crate::model) heads: usize,
    pub(in crate::model) kv_heads: usize,
    pub(in crate::model) head_dim: usize,
    /// Positions a query sees, its own included.
    pub(in crate::model) window: Option<usize>,
}

impl AttentionShape {
    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// First key that the query at `position` sees.
    fn first_key(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// The tiles of a window: (first row, rows, first key, keys).
    fn tiles(self) -> impl Iterator<Item = (usize, usize, usize, usize)> {
        (0..self.batch.length).step_by(TILE).map(move |row| {
            let rows = TILE.min(self.batch.length - row);
            let first = self.first_key(row);
            (row, rows, first, row + rows - first)
        })
    }

    /// The block of one head in one window of an array [tokens, heads · `head_dim`], from row `row` on.
    fn head<'a>(
        &self,
        all: &'a [f32],
        heads: usize,
        (window, head): (usize, usize),
        row: usize,
        rows: usize,
    ) -> MatRef<'a> {
        let stride = heads * self.head_dim;
        let start = (window * self.batch.length + row) * stride + head * self.head_dim;
        MatRef { data: &all[start..], rows, columns: self.head_dim, stride }
    }
}

fn whole(data: &mut [f32], rows: usize, columns: usize) -> MatMut<'_> {
    MatMut { data, rows, columns, stride: columns }
}

fn view(data: &[f32], rows: usize, columns: usize) -> MatRef<'_> {
    MatRef { data, rows, columns, stride: columns }
}

/// `q` [tokens, heads · d], `k` and `v` [tokens, `kv_heads` · d] to o as `q`, and the log-sum-exp of every row of scores
/// [windows · heads · length] for the backward pass.
pub(in crate::model) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, shape: AttentionShape) -> Result<(Tensor, Tensor)> {
    if !is_fused(q) {
        return composed::attend(q, k, v, shape);
    }
    let (q_guard, k_guard, v_guard) = (numbers(q)?, numbers(k)?, numbers(v)?);
    let inputs = Inputs { q: q_guard.get()?, k: k_guard.get()?, v: v_guard.get()?, shape };
    let heads = for_each_head(shape, |at| inputs.forward(at));
    let lse: Vec<f32> = heads.iter().flat_map(|(_, lse)| lse).copied().collect();
    let outputs: Vec<&[f32]> = heads.iter().map(|(o, _)| o.as_slice()).collect();
    let o = gather(&outputs, shape.batch, shape.heads, shape.head_dim);
    let length = lse.len();
    Ok((Tensor::from_vec(o, q.shape(), q.device())?, Tensor::from_vec(lse, length, q.device())?))
}

/// (∂L/∂q, ∂L/∂k, ∂L/∂v) from `go` = ∂L/∂o and what [`attend`] returned.
pub(in crate::model) fn attend_backward(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    (o, lse): (&Tensor, &Tensor),
    go: &Tensor,
    shape: AttentionShape,
) -> Result<(Tensor, Tensor, Tensor)> {
    if !is_fused(q) {
        return composed::attend_backward((q, k, v), lse, go, shape);
    }
    let (q_guard, k_guard, v_guard) = (numbers(q)?, numbers(k)?, numbers(v)?);
    let (o_guard, lse_guard, go_guard) = (numbers(o)?, numbers(lse)?, numbers(go)?);
    let inputs = Inputs { q: q_guard.get()?, k: k_guard.get()?, v: v_guard.get()?, shape };
    let (o_all, lse_all, go_all) = (o_guard.get()?, lse_guard.get()?, go_guard.get()?);
    let heads = for_each_head(shape, |at| inputs.backward(at, o_all, lse_all, go_all));
    let collect = |pick: fn(&[Vec<f32>; 3]) -> &[f32]| heads.iter().map(pick).collect::<Vec<_>>();
    let gq = gather(&collect(|grads| &grads[0]), shape.batch, shape.heads, shape.head_dim);
    let gk = gather_groups(&collect(|grads| &grads[1]), shape);
    let gv = gather_groups(&collect(|grads| &grads[2]), shape);
    let wrap = |data, like: &Tensor| Tensor::from_vec(data, like.shape(), like.device());
    Ok((wrap(gq, q)?, wrap(gk, k)?, wrap(gv, v)?))
}

/// Runs `work` for every (window, query head), in that order.
fn for_each_head<R: Send>(shape: AttentionShape, work: impl Fn((usize, usize)) -> R + Sync) -> Vec<R> {
    let count = shape.batch.windows * shape.heads;
    (0..count).into_par_iter().with_max_len(1).map(|index| work((index / shape.heads, index % shape.heads))).collect()
}

/// [length, d] blocks by (window, head) into [tokens, heads · d].
fn gather(blocks: &[&[f32]], batch: Batch, heads: usize, d: usize) -> Vec<f32> {
    let mut all = vec![0.0; batch.tokens() * heads * d];
    all.par_chunks_mut(heads * d).enumerate().with_min_len(64).for_each(|(token, row)| {
        let (window, position) = (token / batch.length, token % batch.length);
        for (head, out) in row.chunks_exact_mut(d).enumerate() {
            out.copy_from_slice(&blocks[window * heads + head][position * d..][..d]);
        }
    });
    all
}

/// As [`gather`], with the query heads that share a key head summed.
fn gather_groups(blocks: &[&[f32]], shape: AttentionShape) -> Vec<f32> {
    let AttentionShape { batch, heads, kv_heads, head_dim: d, .. } = shape;
    let group = heads / kv_heads;
    let mut all = vec![0.0; batch.tokens() * kv_heads * d];
    all.par_chunks_mut(kv_heads * d).enumerate().with_min_len(64).for_each(|(token, row)| {
        let (window, position) = (token / batch.length, token % batch.length);
        for (head, out) in row.chunks_exact_mut(d).enumerate() {
            for member in 0..group {
                let block = &blocks[window * heads + head * group + member][position * d..][..d];
                out.iter_mut().zip(block).for_each(|(out, x)| *out += x);
            }
        }
    });
    all
}

struct Inputs<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    shape: AttentionShape,
}

impl Inputs<'_> {
    fn kv(&self, (window, head): (usize, usize)) -> (usize, usize) {
        (window, head / (self.shape.heads / self.shape.kv_heads))
    }

    /// scale · q kᵀ of a tile, [rows, keys].
    fn scores(&self, at: (usize, usize), (row, rows, first, keys): (usize, usize, usize, usize), scores: &mut [f32]) {
        let shape = &self.shape;
        let q = shape.head(self.q, shape.heads, at, row, rows);
        let k = shape.head(self.k, shape.kv_heads, self.kv(at), first, keys);
        matmul(whole(scores, rows, keys), Accumulate::Replace, (q, false), (k, true), shape.scale());
    }

    /// The columns of a tile's row that are visible.
    fn visible(&self, (row, _, first, _): (usize, usize, usize, usize), r: usize) -> std::ops::Range<usize> {
        self.shape.first_key(row + r) - first..row + r + 1 - first
    }

    fn forward(&self, at: (usize, usize)) -> (Vec<f32>, Vec<f32>) {
        let AttentionShape { batch, head_dim: d, kv_heads, .. } = self.shape;
        let (mut o, mut lse) = (vec![0.0; batch.length * d], vec![0.0; batch.length]);
        let mut buffer = Vec::new();
        for tile @ (row, rows, first, keys) in self.shape.tiles() {
            buffer.resize(rows * keys, 0.0);
            self.scores(at, tile, &mut buffer);
            for r in 0..rows {
                let visible = self.visible(tile, r);
                lse[row + r] = softmax(&mut buffer[r * keys..][..keys], visible);
            }
            let v = self.shape.head(self.v, kv_heads, self.kv(at), first, keys);
            let out = whole(&mut o[row * d..][..rows * d], rows, d);
            matmul(out, Accumulate::Replace, (view(&buffer, rows, keys), false), (v, false), 1.0);
        }
        (o, lse)
    }

    /// The gradients of one query head: gq, and its share of gk and gv, each [length, d].
    fn backward(&self, at: (usize, usize), o: &[f32], lse: &[f32], go: &[f32]) -> [Vec<f32>; 3] {
        let AttentionShape { batch, head_dim: d, kv_heads, heads, .. } = self.shape;
        let lse = &lse[(at.0 * heads + at.1) * batch.length..][..batch.length];
        let [mut gq, mut gk, mut gv] = [(); 3].map(|()| vec![0.0; batch.length * d]);
        let (mut p, mut gs) = (Vec::new(), Vec::new());
        for tile @ (row, rows, first, keys) in self.shape.tiles() {
            p.resize(rows * keys, 0.0);
            gs.resize(rows * keys, 0.0);
            self.scores(at, tile, &mut p);
            let go = self.shape.head(go, heads, at, row, rows);
            let o = self.shape.head(o, heads, at, row, rows);
            let v = self.shape.head(self.v, kv_heads, self.kv(at), first, keys);
            let k = self.shape.head(self.k, kv_heads, self.kv(at), first, keys);
            let q = self.shape.head(self.q, heads, at, row, rows);
            matmul(whole(&mut gs, rows, keys), Accumulate::Replace, (go, false), (v, true), 1.0);
            for r in 0..rows {
                let (go, o) = (&go.data[r * go.stride..][..d], &o.data[r * o.stride..][..d]);
                let along = vectorised(
                    #[inline(always)]
                    || sum_of(go, o, |a, b| a * b),
                );
                let span = r * keys..(r + 1) * keys;
                softmax_backward(&mut p[span.clone()], &mut gs[span], self.visible(tile, r), lse[row + r], along);
            }
            let scale = self.shape.scale();
            let (p, gs) = (view(&p, rows, keys), view(&gs, rows, keys));
            matmul(whole(&mut gq[row * d..][..rows * d], rows, d), Accumulate::Replace, (gs, false), (k, false), scale);
            matmul(whole(&mut gk[first * d..][..keys * d], keys, d), Accumulate::Add, (gs, true), (q, false), scale);
            matmul(whole(&mut gv[first * d..][..keys * d], keys, d), Accumulate::Add, (p, true), (go, false), 1.0);
        }
        [gq, gk, gv]
    }
}

/// Scores of a row to probabilities, nought outside `visible`; returns the log-sum-exp.
fn softmax(row: &mut [f32], visible: std::ops::Range<usize>) -> f32 {
    let end = visible.end;
    row[..visible.start].fill(0.0);
    row[end..].fill(0.0);
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
            most + total.ln()
        },
    )
}

/// Scores of a row to probabilities in `p`, and ∂L/∂p to ∂L/∂scores = p (∂L/∂p − along) in `g`.
fn softmax_backward(p: &mut [f32], g: &mut [f32], visible: std::ops::Range<usize>, lse: f32, along: f32) {
    for row in [&mut *p, &mut *g] {
        row[..visible.start].fill(0.0);
        row[visible.end..].fill(0.0);
    }
    let (p, g) = (&mut p[visible.clone()], &mut g[visible]);
    vectorised(
        #[inline(always)]
        || {
            for (p, g) in p.iter_mut().zip(g) {
                *p = exp(*p - lse);
                *g = *p * (*g - along);
            }
        },
    );
}

/// The same out of candle's operations.
mod composed {
    use super::{super::wide, AttentionShape, D, Result, Tensor};

    /// [tokens, heads · d] -> [windows, heads, length, d], key heads repeated for their group.
    fn split(x: &Tensor, heads: usize, shape: &AttentionShape) -> Result<Tensor> {
        let (w, t, d) = (shape.batch.windows, shape.batch.length, shape.head_dim);
        let group = shape.heads / heads;
        let x = x.reshape((w, t, heads, d))?.transpose(1, 2)?;
        // [windows, heads, 1, length, d] -> [windows, heads, group, length, d] -> [windows, heads · group, length, d]
        x.unsqueeze(2)?.broadcast_as((w, heads, group, t, d))?.contiguous()?.reshape((w, shape.heads, t, d))
    }

    /// The inverse of [`split`] for gradients: groups are summed.
    fn join(x: &Tensor, heads: usize, shape: &AttentionShape) -> Result<Tensor> {
        let (w, t, d) = (shape.batch.windows, shape.batch.length, shape.head_dim);
        let x = x.contiguous()?.reshape((w, heads, shape.heads / heads, t, d))?.sum(2)?;
        x.transpose(1, 2)?.contiguous()?.reshape((w * t, heads * d))
    }

    /// Masked scores [windows, heads, length, length] in f32.
    fn scores(q: &Tensor, k: &Tensor, shape: &AttentionShape) -> Result<Tensor> {
        let t = shape.batch.length;
        let hidden = |i: usize, j: usize| j > i || j < shape.first_key(i);
        let mask: Vec<f32> =
            (0..t * t).map(|at| if hidden(at / t, at % t) { f32::NEG_INFINITY } else { 0.0 }).collect();
        let mask = Tensor::from_vec(mask, (t, t), q.device())?;
        (wide(&q.matmul(&k.transpose(2, 3)?.contiguous()?)?)? * f64::from(shape.scale()))?.broadcast_add(&mask)
    }

    pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, shape: AttentionShape) -> Result<(Tensor, Tensor)> {
        let (q, k, v) =
            (split(q, shape.heads, &shape)?, split(k, shape.kv_heads, &shape)?, split(v, shape.kv_heads, &shape)?);
        let scores = scores(&q, &k, &shape)?;
        let most = scores.max_keepdim(D::Minus1)?;
        let lse = (scores.broadcast_sub(&most)?.exp()?.sum_keepdim(D::Minus1)?.log()? + most)?;
        let o = scores.broadcast_sub(&lse)?.exp()?.to_dtype(v.dtype())?.matmul(&v)?;
        Ok((join(&o, shape.heads, &shape)?, lse.flatten_all()?))
    }

    pub(super) fn attend_backward(
        (q, k, v): (&Tensor, &Tensor, &Tensor),
        lse: &Tensor,
        go: &Tensor,
        shape: AttentionShape,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let (w, t) = (shape.batch.windows, shape.batch.length);
        let (q, k, v) =
            (split(q, shape.heads, &shape)?, split(k, shape.kv_heads, &shape)?, split(v, shape.kv_heads, &shape)?);
        let go = split(go, shape.heads, &shape)?;
        let p = scores(&q, &k, &shape)?.broadcast_sub(&lse.reshape((w, shape.heads, t, 1))?)?.exp()?;
        let gp = wide(&go.matmul(&v.transpose(2, 3)?.contiguous()?)?)?;
        let along = (&gp * &p)?.sum_keepdim(D::Minus1)?;
        let gs = ((gp.broadcast_sub(&along)? * &p)? * f64::from(shape.scale()))?.to_dtype(q.dtype())?;
        let p = p.to_dtype(q.dtype())?;
        let transposed = |x: &Tensor| x.transpose(2, 3)?.contiguous();
        Ok((
            join(&gs.matmul(&k)?, shape.heads, &shape)?,
            join(&transposed(&gs)?.matmul(&q)?, shape.kv_heads, &shape)?,
            join(&transposed(&p)?.matmul(&go)?, shape.kv_heads, &shape)?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn shape(length: usize, window: Option<usize>) -> AttentionShape {
        AttentionShape { batch: Batch { windows: 2, length }, heads: 4, kv_heads: 2, head_dim: 8, window }
    }

    #[test]
    fn tiles_agree_with_candle_forward_and_backward() {
        for (length, window) in [(1, None), (9, None), (300, None), (300, Some(20)), (140, Some(1))] {
            let shape = shape(length, window);
            let [q, go] = [1, 2].map(|seed| random(seed, &[2 * length, 32]));
            let [k, v] = [3, 4].map(|seed| random(seed, &[2 * length, 16]));
            let (o, lse) = attend(&q, &k, &v, shape).unwrap();
            let vars = [&q, &k, &v].map(variable);
            let (expected, expected_lse) =
                composed::attend(vars[0].as_tensor(), vars[1].as_tensor(), vars[2].as_tensor(), shape).unwrap();
            assert!(distance(&o, &expected) < 1e-5, "length {length}");
            assert!(distance(&lse, &expected_lse) < 1e-5);
            let by_candle = (expected * &go).unwrap().sum_all().unwrap().backward().unwrap();
            let fused = attend_backward((&q, &k, &v), (&o, &lse), &go, shape).unwrap();
            let composed = composed::attend_backward((&q, &k, &v), &lse, &go, shape).unwrap();
            for (var, (fused, composed)) in
                vars.iter().zip([(fused.0, composed.0), (fused.1, composed.1), (fused.2, composed.2)])
            {
                let expected = by_candle.get(var.as_tensor()).unwrap();
                assert!(distance(expected, &fused) < 2e-5, "length {length}: {}", distance(expected, &fused));
                assert!(distance(expected, &composed) < 2e-5);
            }
        }
    }
}
