//! The rotary turn of query and key heads.

use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

use super::{super::rotary::Turn, is_fused, numbers, rows_per_task, vectorised, wide};
use crate::model::Batch;

/// `x` [tokens, heads · d], every head turned by the angles of its token's position; `cos` and `sin` [positions, d / 2].
pub(in crate::model) fn rotate(x: &Tensor, batch: Batch, cos: &Tensor, sin: &Tensor, turn: Turn) -> Result<Tensor> {
    let half = cos.dim(D::Minus1)?;
    let sign = if turn == Turn::Forward { 1.0 } else { -1.0 };
    if !is_fused(x) {
        return composed(x, batch, cos, sin, f64::from(sign));
    }
    let width = x.dim(D::Minus1)?;
    let (x_guard, cos_guard, sin_guard) = (numbers(x)?, numbers(cos)?, numbers(sin)?);
    let (x_all, cos_all, sin_all) = (x_guard.get()?, cos_guard.get()?, sin_guard.get()?);
    let mut y = vec![0.0; x_all.len()];
    let rows = rows_per_task(width);
    y.par_chunks_mut(rows * width).zip(x_all.par_chunks(rows * width)).enumerate().for_each(|(task, (y, x))| {
        vectorised(
            #[inline(always)]
            || {
                for (row, (y, x)) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)).enumerate() {
                    let position = (task * rows + row) % batch.length;
                    let (c, s) = (&cos_all[position * half..][..half], &sin_all[position * half..][..half]);
                    for (y, x) in y.chunks_exact_mut(2 * half).zip(x.chunks_exact(2 * half)) {
                        let (y_low, y_high) = y.split_at_mut(half);
                        let (x_low, x_high) = x.split_at(half);
                        for i in 0..half {
                            y_low[i] = x_low[i] * c[i] - sign * x_high[i] * s[i];
                            y_high[i] = x_high[i] * c[i] + sign * x_low[i] * s[i];
                        }
                    }
                }
            },
        );
    });
    Tensor::from_vec(y, x.shape(), x.device())
}

fn composed(x: &Tensor, batch: Batch, cos: &Tensor, sin: &Tensor, sign: f64) -> Result<Tensor> {
    let half = cos.dim(D::Minus1)?;
    let heads = x.dim(D::Minus1)? / (2 * half);
    // [tokens, heads · d] -> [windows, length, heads, d]
    let split = wide(x)?.reshape((batch.windows, batch.length, heads, 2 * half))?;
    let (low, high) = (split.narrow(D::Minus1, 0, half)?, split.narrow(D::Minus1, half, half)?);
    // [positions, d / 2] -> [1, length, 1, d / 2]
    let angles = |table: &Tensor| table.narrow(0, 0, batch.length)?.reshape((1, batch.length, 1, half));
    let (c, s) = (angles(cos)?, (angles(sin)? * sign)?);
    let turned_low = (low.broadcast_mul(&c)? - high.broadcast_mul(&s)?)?;
    let turned_high = (high.broadcast_mul(&c)? + low.broadcast_mul(&s)?)?;
    Tensor::cat(&[turned_low, turned_high], D::Minus1)?.reshape(x.shape())?.to_dtype(x.dtype())
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn the_fused_turn_is_the_composed_one_and_turns_back() {
        let batch = Batch { windows: 2, length: 3 };
        let (x, angle) = (random(1, &[6, 16]), random(2, &[5, 4]));
        let (cos, sin) = (angle.cos().unwrap(), angle.sin().unwrap());
        let y = rotate(&x, batch, &cos, &sin, Turn::Forward).unwrap();
        assert!(distance(&y, &composed(&x, batch, &cos, &sin, 1.0).unwrap()) < 1e-6);
        assert!(distance(&x, &rotate(&y, batch, &cos, &sin, Turn::Back).unwrap()) < 1e-6);
    }
}
