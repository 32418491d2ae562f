//! Next-token cross-entropy over the vocabulary, a few tokens at a time.

use candle_core::{CpuStorage, D, DType, Error, InplaceOp1, Layout, Result, Tensor};
use rayon::prelude::*;

use super::{exp, is_fused, largest, numbers, sum_of, vectorised, wide};

/// −log p(target) of every row of `logits` [tokens, vocabulary].
pub(in crate::model) fn cross_entropy(logits: &Tensor, targets: &[u32]) -> Result<Vec<f64>> {
    if !is_fused(logits) {
        return composed(logits, targets);
    }
    let width = logits.dim(D::Minus1)?;
    let guard = numbers(logits)?;
    let rows = guard.get()?.par_chunks_exact(width).zip(targets);
    Ok(rows.map(|(row, target)| log_sum_exp(row) - f64::from(row[*target as usize])).collect())
}

/// log p of (row, target) pairs under `logits` [rows, vocabulary].
pub(in crate::model) fn log_probabilities(logits: &Tensor, picks: &[(usize, u32)]) -> Result<Vec<f64>> {
    let width = logits.dim(D::Minus1)?;
    let sums: Vec<f64> = match is_fused(logits) {
        true => numbers(logits)?.get()?.par_chunks_exact(width).map(log_sum_exp).collect(),
        false => composed_log_sum_exp(&wide(logits)?)?.squeeze(1)?.to_dtype(DType::F64)?.to_vec1()?,
    };
    let index: Vec<u32> = picks.iter().map(|(row, target)| (row * width) as u32 + target).collect();
    let index = Tensor::from_vec(index, picks.len(), logits.device())?;
    let picked: Vec<f32> = wide(&logits.flatten_all()?.index_select(&index, 0)?)?.to_vec1()?;
    Ok(picked.iter().zip(picks).map(|(picked, (row, _))| f64::from(*picked) - sums[*row]).collect())
}

fn log_sum_exp(row: &[f32]) -> f64 {
    vectorised(
        #[inline(always)]
        || {
            let most = largest(row);
            f64::from(most) + f64::from(sum_of(row, row, |x, _| exp(x - most))).ln()
        },
    )
}

fn composed(logits: &Tensor, targets: &[u32]) -> Result<Vec<f64>> {
    let index = Tensor::new(targets, logits.device())?.unsqueeze(1)?;
    let logits = &wide(logits)?;
    let picked = logits.gather(&index, D::Minus1)?;
    (composed_log_sum_exp(logits)? - picked)?.squeeze(1)?.to_dtype(DType::F64)?.to_vec1()
}

/// [rows, 1].
fn composed_log_sum_exp(logits: &Tensor) -> Result<Tensor> {
    let most = logits.max_keepdim(D::Minus1)?;
    &most + logits.broadcast_sub(&most)?.exp()?.sum_keepdim(D::Minus1)?.log()?
}

/// As [`cross_entropy`], and overwrites `logits` by the gradient of Σ weight · −log p(target): weight · (p − onehot).
pub(in crate::model) fn cross_entropy_backward(
    logits: Tensor,
    targets: &[u32],
    weight: f32,
) -> Result<(Vec<f64>, Tensor)> {
    let losses = cross_entropy(&logits, targets)?;
    if is_fused(&logits) {
        logits.inplace_op1(&Backward { targets, losses: &losses, weight })?;
        return Ok((losses, logits));
    }
    let (dtype, logits) = (logits.dtype(), wide(&logits)?);
    let most = logits.max_keepdim(D::Minus1)?;
    let shares = logits.broadcast_sub(&most)?.exp()?;
    let p = shares.broadcast_div(&shares.sum_keepdim(D::Minus1)?)?;
    let index = Tensor::new(targets, logits.device())?.unsqueeze(1)?;
    let minus_one = Tensor::full(-1.0_f32, (targets.len(), 1), logits.device())?;
    Ok((losses, (p.scatter_add(&index, &minus_one, D::Minus1)? * f64::from(weight))?.to_dtype(dtype)?))
}

struct Backward<'a> {
    targets: &'a [u32],
    losses: &'a [f64],
    weight: f32,
}

impl InplaceOp1 for Backward<'_> {
    fn name(&self) -> &'static str {
        "cross-entropy-backward"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(all), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            return Err(Error::Msg("contiguous f32 logits are needed".to_owned()));
        };
        let width = (end - start) / self.targets.len().max(1);
        let rows = all[start..end].par_chunks_exact_mut(width.max(1)).zip(self.targets).zip(self.losses);
        rows.for_each(|((row, target), loss)| {
            let target = *target as usize;
            // log Σ eˣ again, from the loss: no second pass over the row.
            let log_sum = (loss + f64::from(row[target])) as f32;
            vectorised(
                #[inline(always)]
                || {
                    for x in row.iter_mut() {
                        *x = self.weight * exp(*x - log_sum);
                    }
                },
            );
            row[target] -= self.weight;
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn loss_and_gradient_agree_with_candle() {
        let targets = [3, 0, 69];
        let logits = (random(1, &[3, 70]) * 5.0).unwrap();
        let variable = variable(&logits);
        let expected =
            candle_nn::loss::cross_entropy(variable.as_tensor(), &Tensor::new(&targets, logits.device()).unwrap())
                .unwrap();
        let gradients = expected.backward().unwrap();
        let (losses, gradient) = cross_entropy_backward(logits.copy().unwrap(), &targets, 1.0 / 3.0).unwrap();
        assert!((losses.iter().sum::<f64>() / 3.0 - f64::from(expected.to_scalar::<f32>().unwrap())).abs() < 1e-5);
        assert!(distance(gradients.get(variable.as_tensor()).unwrap(), &gradient) < 1e-6);
        for (fused, composed) in losses.iter().zip(composed(&logits, &targets).unwrap()) {
            assert!((fused - composed).abs() < 1e-5);
        }
        let found = log_probabilities(&logits, &[(2, 69), (0, 3), (2, 69)]).unwrap();
        assert!((found[0] + losses[2]).abs() < 1e-6 && (found[1] + losses[0]).abs() < 1e-6);
        assert!((found[2] - found[0]).abs() < 1e-12);
    }
}
