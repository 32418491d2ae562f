use candle_core::{CpuStorage, Error, InplaceOp2, Layout, Result, Tensor};
use rayon::prelude::*;

use super::{TASK, vectorised};

/// `sum + addend`, in the memory of `sum` where the device allows it: the caller must hold the only handle of `sum`.
pub fn accumulate(sum: Tensor, addend: &Tensor) -> Result<Tensor> {
    if !sum.device().is_cpu() {
        return sum + addend;
    }
    sum.inplace_op2(addend, &Add)?;
    Ok(sum)
}

struct Add;

impl InplaceOp2 for Add {
    fn name(&self) -> &'static str {
        "accumulate"
    }

    fn cpu_fwd(
        &self,
        sum: &mut CpuStorage,
        sum_layout: &Layout,
        addend: &CpuStorage,
        addend_layout: &Layout,
    ) -> Result<()> {
        let (CpuStorage::F32(sum), CpuStorage::F32(addend)) = (sum, addend) else {
            return Err(Error::Msg("f32 tensors are needed".to_owned()));
        };
        let (Some((start, end)), Some((from, to))) =
            (sum_layout.contiguous_offsets(), addend_layout.contiguous_offsets())
        else {
            return Err(Error::Msg("contiguous tensors are needed".to_owned()));
        };
        let pieces = sum[start..end].par_chunks_mut(TASK).zip(addend[from..to].par_chunks(TASK));
        pieces.for_each(|(sum, addend)| {
            vectorised(
                #[inline(always)]
                || sum.iter_mut().zip(addend).for_each(|(sum, x)| *sum += x),
            );
        });
        Ok(())
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
