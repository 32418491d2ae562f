//! `RMSNorm`: y = w · x / √(mean x² + ε), over rows of `w`'s width.

use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

use super::{is_fused, numbers, rows_per_task, sum_of, vectorised, wide};

/// `x` [.., d] normalised and scaled by `w` [d].
pub(in crate::model) fn rms_norm(x: &Tensor, w: &Tensor, eps: f64) -> Result<Tensor> {
    if !is_fused(x) {
        return composed(&wide(x)?, eps)?.broadcast_mul(&wide(w)?)?.to_dtype(x.dtype());
    }
    let width = w.elem_count();
    let (x_guard, w_guard) = (numbers(x)?, numbers(w)?);
    let (x_all, w_all) = (x_guard.get()?, w_guard.get()?);
    let mut y = vec![0.0; x_all.len()];
    let rows = rows_per_task(width) * width;
    y.par_chunks_mut(rows).zip(x_all.par_chunks(rows)).for_each(|(y, x)| {
        vectorised(
            #[inline(always)]
            || {
                for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    let scale = inverse_root(x, eps);
                    for ((y, x), w) in y.iter_mut().zip(x).zip(w_all) {
                        *y = x * scale * w;
                    }
                }
            },
        );
    });
    Tensor::from_vec(y, x.shape(), x.device())
}

#[inline(always)]
fn inverse_root(x: &[f32], eps: f64) -> f32 {
    let mean = f64::from(sum_of(x, x, |a, b| a * b)) / x.len() as f64;
    (1.0 / (mean + eps).sqrt()) as f32
}

fn composed(x: &Tensor, eps: f64) -> Result<Tensor> {
    let root = ((x.sqr()?.mean_keepdim(D::Minus1)? + eps)?).sqrt()?;
    x.broadcast_div(&root)
}

/// ∂L/∂x from `gy` = ∂L/∂y: with r the inverse root and h = w · gy, gx = r h − x r³ mean(h x).
pub(in crate::model) fn rms_norm_backward(x: &Tensor, w: &Tensor, eps: f64, gy: &Tensor) -> Result<Tensor> {
    if !is_fused(x) {
        return composed_backward(x, w, eps, gy);
    }
    let width = w.elem_count();
    let (x_guard, w_guard, g_guard) = (numbers(x)?, numbers(w)?, numbers(gy)?);
    let (x_all, w_all, g_all) = (x_guard.get()?, w_guard.get()?, g_guard.get()?);
    let mut gx = vec![0.0; x_all.len()];
    let rows = rows_per_task(width) * width;
    let tasks = gx.par_chunks_mut(rows).zip(x_all.par_chunks(rows)).zip(g_all.par_chunks(rows));
    tasks.for_each(|((gx, x), gy)| {
        vectorised(
            #[inline(always)]
            || {
                let rows = gx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(gy.chunks_exact(width));
                for ((gx, x), gy) in rows {
                    let r = inverse_root(x, eps);
                    // gx first holds h, so that the sum below reads one array less.
                    for ((h, gy), w) in gx.iter_mut().zip(gy).zip(w_all) {
                        *h = gy * w;
                    }
                    let along = sum_of(gx, x, |h, x| h * x) / width as f32 * r * r * r;
                    for (gx, x) in gx.iter_mut().zip(x) {
                        *gx = r * *gx - along * x;
                    }
                }
            },
        );
    });
    Tensor::from_vec(gx, x.shape(), x.device())
}

fn composed_backward(x: &Tensor, w: &Tensor, eps: f64, gy: &Tensor) -> Result<Tensor> {
    let dtype = x.dtype();
    let x = wide(x)?;
    let r = ((x.sqr()?.mean_keepdim(D::Minus1)? + eps)?).sqrt()?.recip()?;
    let h = wide(gy)?.broadcast_mul(&wide(w)?)?;
    let along = (&h * &x)?.mean_keepdim(D::Minus1)?.mul(&r.powf(3.0)?)?;
    (h.broadcast_mul(&r)? - x.broadcast_mul(&along)?)?.to_dtype(dtype)
}

/// ∂L/∂w [d] = Σ gy · x r over the rows, in f32.
pub(in crate::model) fn rms_norm_weight_gradient(x: &Tensor, width: usize, eps: f64, gy: &Tensor) -> Result<Tensor> {
    if !is_fused(x) {
        // [.., d] -> [rows, d]
        let rows = |x: &Tensor| wide(x)?.reshape(((), width));
        return (composed(&rows(x)?, eps)? * rows(gy)?)?.sum(0);
    }
    let (x_guard, g_guard) = (numbers(x)?, numbers(gy)?);
    let rows = rows_per_task(width) * width;
    let tasks = x_guard.get()?.par_chunks(rows).zip(g_guard.get()?.par_chunks(rows)).map(|(x, gy)| {
        let mut sum = vec![0.0_f32; width];
        vectorised(
            #[inline(always)]
            || {
                for (x, gy) in x.chunks_exact(width).zip(gy.chunks_exact(width)) {
                    let r = inverse_root(x, eps);
                    for ((sum, x), gy) in sum.iter_mut().zip(x).zip(gy) {
                        *sum += gy * x * r;
                    }
                }
            },
        );
        sum
    });
    let sums: Vec<Vec<f32>> = tasks.collect();
    let total = (0..width).map(|i| sums.iter().map(|sum| f64::from(sum[i])).sum::<f64>() as f32);
    Tensor::from_vec(total.collect(), width, x.device())
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn forward_and_backward_agree_with_candle() {
        let (x, w, gy) = (random(1, &[5, 40]), random(2, &[40]), random(3, &[5, 40]));
        let (variable, w_variable) = (variable(&x), variable(&w));
        let y = composed(variable.as_tensor(), 1e-5).unwrap().broadcast_mul(w_variable.as_tensor()).unwrap();
        assert!(distance(&y, &rms_norm(&x, &w, 1e-5).unwrap()) < 1e-6);
        let gradients = (y * &gy).unwrap().sum_all().unwrap().backward().unwrap();
        let expected = gradients.get(variable.as_tensor()).unwrap();
        assert!(distance(expected, &rms_norm_backward(&x, &w, 1e-5, &gy).unwrap()) < 1e-5);
        assert!(distance(expected, &composed_backward(&x, &w, 1e-5, &gy).unwrap()) < 1e-5);
        let expected = gradients.get(w_variable.as_tensor()).unwrap();
        assert!(distance(expected, &rms_norm_weight_gradient(&x, 40, 1e-5, &gy).unwrap()) < 1e-5);
    }
}
