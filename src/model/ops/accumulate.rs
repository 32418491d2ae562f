use candle_core::{CpuStorage, Error, InplaceOp2, InplaceOp3, Layout, Result, Tensor};
use rayon::prelude::*;

use super::{TASK, vectorised};

/// `sum + addend`, in the memory of `sum` where the device allows it: the caller must hold the only handle of `sum`.
pub fn accumulate(sum: Tensor, addend: &Tensor) -> Result<Tensor> {
    if !sum.device().is_cpu() {
        return sum + addend;
    }
    update(&sum, addend, |sum, x| sum + x)?;
    Ok(sum)
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
    fn it_adds() {
        let (a, b) = (random(1, &[7, 9]), random(2, &[7, 9]));
        let expected = (&a + &b).unwrap();
        assert!(distance(&expected, &accumulate(a.copy().unwrap(), &b).unwrap()) < 1e-7);
    }
}
