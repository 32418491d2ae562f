//! Dropout whose mask is a function of a seed and the place alone: the backward pass makes it again instead of keeping
//! it, and a training that was stopped goes on with the masks it would have had.

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

use super::{TASK, is_fused, numbers, vectorised};

/// `x` with each number set to nought with the given probability, the others scaled up so that the mean stays.
pub(in crate::model) fn dropout(x: &Tensor, probability: f32, seed: u64) -> Result<Tensor> {
    if !is_fused(x) {
        let ones = Tensor::ones(x.shape(), DType::F32, &Device::Cpu)?;
        return x * dropout(&ones, probability, seed)?.to_device(x.device())?.to_dtype(x.dtype())?;
    }
    let guard = numbers(x)?;
    let all = guard.get()?;
    let mut y = vec![0.0; all.len()];
    let scale = 1.0 / (1.0 - probability);
    let least = (f64::from(probability) * 2.0_f64.powi(32)) as u32;
    let (low, high) = (seed as u32, (seed >> 32) as u32);
    y.par_chunks_mut(TASK).zip(all.par_chunks(TASK)).enumerate().for_each(|(task, (y, x))| {
        vectorised(
            #[inline(always)]
            || {
                // An index counted up by hand: with a range of u32 the loop does not become vectors.
                let mut index = (task * TASK) as u32;
                for (y, x) in y.iter_mut().zip(x) {
                    let drawn = mixed(mixed(index ^ low) ^ high);
                    let kept = x * scale;
                    *y = if drawn < least { 0.0 } else { kept };
                    index = index.wrapping_add(1);
                }
            },
        );
    });
    Tensor::from_vec(y, x.shape(), x.device())
}

/// A permutation of the numbers of 32 bits in which every bit of the argument changes half of the result's.
#[inline(always)]
fn mixed(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn the_share_and_the_mean_are_right_and_the_seed_decides() {
        let x = Tensor::ones((300, 200), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        let y = dropout(&x, 0.25, 7 << 40 | 3).unwrap();
        let numbers: Vec<f32> = y.flatten_all().unwrap().to_vec1().unwrap();
        let dropped = numbers.iter().filter(|x| **x == 0.0).count() as f64 / 60_000.0;
        assert!((dropped - 0.25).abs() < 0.01, "{dropped}");
        assert!((numbers.iter().sum::<f32>() / 60_000.0 - 1.0).abs() < 0.02);
        assert!(distance(&y, &dropout(&x, 0.25, 7 << 40 | 3).unwrap()) < 1e-9);
        assert!(distance(&y, &dropout(&x, 0.25, 7 << 40 | 4).unwrap()) > 1.0);
        assert!(distance(&y, &dropout(&x, 0.25, 8 << 40 | 3).unwrap()) > 1.0);
        assert!(distance(&x, &dropout(&x, 0.0, 1).unwrap()) < 1e-9);
    }
}
