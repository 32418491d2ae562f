use candle_core::{CpuStorage, Error, InplaceOp1, InplaceOp2, InplaceOp3, Layout, Result, Tensor};
use rayon::prelude::*;

use super::{TASK, is_fused, vectorised};
use crate::linalg::{Accumulate, MatMut, MatRef, matmul};

/// Rows of a block of [`add_gram`].
const BLOCK: usize = 128;

/// `sum + addend`, in the memory of `sum` where the device allows it: the caller must hold the only handle of `sum`.
pub fn accumulate(sum: Tensor, addend: &Tensor) -> Result<Tensor> {
    if !is_fused(&sum) {
        return sum + addend;
    }
    update(&sum, addend, |sum, x| sum + x)?;
    Ok(sum)
}

/// `x − y`, in the memory of `x` where the device allows it: the caller must hold the only handle of `x`.
pub fn subtract(x: Tensor, y: &Tensor) -> Result<Tensor> {
    if !is_fused(&x) {
        return x - y;
    }
    update(&x, y, |x, y| x - y)?;
    Ok(x)
}

/// `x` · `factor`, in the memory of `x` where the device allows it: the caller must hold the only handle of `x`.
pub(in crate::model) fn scale(x: Tensor, factor: f64) -> Result<Tensor> {
    if !is_fused(&x) {
        return x * factor;
    }
    x.inplace_op1(&Scale(factor as f32))?;
    Ok(x)
}

struct Scale(f32);

impl InplaceOp1 for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        numbers_mut(x, layout)?.par_chunks_mut(TASK).for_each(|x| {
            vectorised(
                #[inline(always)]
                || x.iter_mut().for_each(|x| *x *= self.0),
            );
        });
        Ok(())
    }
}

/// `sum` + `xᵀ x` of `x` [tokens, n], in the memory of `sum` [n, n] where the device allows it: the caller must hold its
/// only handle. Without a sum it begins with zeros. On the CPU only the lower triangle is computed, since the product is
/// symmetric; above it are zeros.
pub fn add_gram(sum: Option<Tensor>, x: &Tensor) -> Result<Tensor> {
    let n = x.dim(1)?;
    if !is_fused(x) {
        let product = x.t()?.matmul(x)?;
        return sum.map_or_else(|| Ok(product.clone()), |sum| sum + &product);
    }
    let sum = sum.map_or_else(|| Tensor::zeros((n, n), x.dtype(), x.device()), Ok)?;
    sum.inplace_op2(&x.contiguous()?, &Gram { n })?;
    Ok(sum)
}

struct Gram {
    n: usize,
}

impl InplaceOp2 for Gram {
    fn name(&self) -> &'static str {
        "add_gram"
    }

    fn cpu_fwd(&self, sum: &mut CpuStorage, sum_layout: &Layout, x: &CpuStorage, x_layout: &Layout) -> Result<()> {
        let (n, sum, x) = (self.n, numbers_mut(sum, sum_layout)?, numbers(x, x_layout)?);
        let tokens = x.len() / n.max(1);
        sum.par_chunks_mut(BLOCK * n.max(1)).enumerate().for_each(|(block, data)| {
            let (first, rows) = (block * BLOCK, data.len() / n);
            let columns = first + rows;
            let left = MatRef { data: &x[first..], rows: tokens, columns: rows, stride: n };
            let right = MatRef { data: x, rows: tokens, columns, stride: n };
            let place = MatMut { data, rows, columns, stride: n };
            matmul(place, Accumulate::Add, (left, true), (right, false), 1.0);
        });
        Ok(())
    }
}

/// x = `f(x, a)` for every number of `x` on the CPU, in its memory: whoever holds the tensor sees the change.
pub(super) fn update(x: &Tensor, a: &Tensor, f: impl Fn(f32, f32) -> f32 + Sync) -> Result<()> {
    x.inplace_op2(a, &Update(f))
}

/// As [`update`], x = `f(x, a, b)`.
pub(super) fn update3(x: &Tensor, a: &Tensor, b: &Tensor, f: impl Fn(f32, f32, f32) -> f32 + Sync) -> Result<()> {
    x.inplace_op3(a, b, &Update(f))
}

struct Update<F>(F);

impl<F: Fn(f32, f32) -> f32 + Sync> InplaceOp2 for Update<F> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, x_layout: &Layout, a: &CpuStorage, a_layout: &Layout) -> Result<()> {
        let (x, a) = (numbers_mut(x, x_layout)?, numbers(a, a_layout)?);
        x.par_chunks_mut(TASK).zip(a.par_chunks(TASK)).for_each(|(x, a)| {
            vectorised(
                #[inline(always)]
                || x.iter_mut().zip(a).for_each(|(x, a)| *x = (self.0)(*x, *a)),
            );
        });
        Ok(())
    }
}

impl<F: Fn(f32, f32, f32) -> f32 + Sync> InplaceOp3 for Update<F> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        x_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<()> {
        let (x, a, b) = (numbers_mut(x, x_layout)?, numbers(a, a_layout)?, numbers(b, b_layout)?);
        let pieces = x.par_chunks_mut(TASK).zip(a.par_chunks(TASK)).zip(b.par_chunks(TASK));
        pieces.for_each(|((x, a), b)| {
            vectorised(
                #[inline(always)]
                || x.iter_mut().zip(a).zip(b).for_each(|((x, a), b)| *x = (self.0)(*x, *a, *b)),
            );
        });
        Ok(())
    }
}

fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(all), Some((start, end))) => Ok(&all[start..end]),
        _ => Err(Error::Msg("contiguous f32 tensors are needed".to_owned())),
    }
}

fn numbers_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(all), Some((start, end))) => Ok(&mut all[start..end]),
        _ => Err(Error::Msg("contiguous f32 tensors are needed".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn it_adds_subtracts_and_scales() {
        let (a, b) = (random(1, &[7, 9]), random(2, &[7, 9]));
        let expected = (&a + &b).unwrap();
        assert!(distance(&expected, &accumulate(a.copy().unwrap(), &b).unwrap()) < 1e-7);
        assert!(distance(&(&a - &b).unwrap(), &subtract(a.copy().unwrap(), &b).unwrap()) < 1e-7);
        assert!(distance(&(&a * 0.3).unwrap(), &scale(a.copy().unwrap(), 0.3).unwrap()) < 1e-7);
    }

    #[test]
    fn the_lower_triangle_of_a_gram_matrix_is_the_product() {
        for n in [5, 128, 300] {
            let (a, b) = (random(1, &[7, n]), random(2, &[9, n]));
            let both = Tensor::cat(&[&a, &b], 0).unwrap();
            let expected = both.t().unwrap().matmul(&both).unwrap();
            let sum = add_gram(Some(add_gram(None, &a).unwrap()), &b).unwrap();
            let lower = Tensor::tril2(n, sum.dtype(), sum.device()).unwrap();
            assert!(distance(&(expected * &lower).unwrap(), &(sum * &lower).unwrap()) < 1e-5, "{n}");
        }
    }
}
