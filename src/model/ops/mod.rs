//! The element-wise parts of a decoder, forward and backward.
//!
//! In f32 on the CPU each is one fused pass over the rows, spread over the cores and compiled for the widest vectors the
//! machine has (chosen at run time); on other devices, and in other types, it is composed of candle's own operations. Sums
//! over a row are taken in f32 lanes and are short (a hidden state, a vocabulary); sums over tokens are taken in f64. What
//! is composed takes norms, exponentials and losses in f32 whatever the type of the states is.

mod accumulate;
mod adamw;
mod attention;
mod cosine;
mod cross_entropy;
mod dropout;
mod norm;
mod packed;
mod rotate;
mod swiglu;

use std::ops::{Deref, Range};

pub(super) use accumulate::scale;
pub use accumulate::{accumulate, add_gram, subtract};
pub use adamw::{AdamW, Moments, squared_norm};
pub(super) use attention::{AttentionShape, attend, attend_backward};
use candle_core::{CpuStorage, DType, Result, Storage, Tensor, bail};
pub use cosine::cosine_similarities;
pub(super) use cross_entropy::{cross_entropy, cross_entropy_backward, log_probabilities};
pub(super) use dropout::dropout;
pub(super) use norm::{rms_norm, rms_norm_backward, rms_norm_weight_gradient};
pub(super) use packed::{Piece, attend_packed};
pub(super) use rotate::rotate;
pub(super) use swiglu::{swiglu, swiglu_backward};

/// Numbers a task should at least touch, so that handing it to another core pays.
const TASK: usize = 1 << 15;

/// Whether the fused passes are for this tensor.
fn is_fused(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// In f32; the tensor itself where it is that.
fn wide(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(DType::F32)
}

/// The numbers of a contiguous f32 tensor on the CPU, borrowed.
struct Numbers<G> {
    storage: G,
    span: Range<usize>,
}

fn numbers(x: &Tensor) -> Result<Numbers<impl Deref<Target = Storage>>> {
    let (storage, layout) = x.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("a contiguous tensor is needed, not {layout:?}")
    };
    Ok(Numbers { storage, span: start..end })
}

impl<G: Deref<Target = Storage>> Numbers<G> {
    fn get(&self) -> Result<&[f32]> {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(all)) => Ok(&all[self.span.clone()]),
            _ => bail!("an f32 tensor on the CPU is needed"),
        }
    }
}

/// Runs a loop compiled for the widest vectors of this machine.
fn vectorised<R>(kernel: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(kernel)
}

/// Rows per task for rows of `width` numbers.
fn rows_per_task(width: usize) -> usize {
    (TASK / width.max(1)).max(1)
}

/// eˣ to within 2 units in the last place, written so that a compiler turns a loop of it into vectors. Cephes' method:
/// x = n ln 2 + r, a polynomial in r, and 2ⁿ through the exponent bits.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding and subtracting 1.5 · 2²³ rounds to the nearest integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4 * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    y * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// Sum of a row in sixteen lanes, which is both quicker and closer than one running sum.
#[inline(always)]
fn sum(row: &[f32]) -> f32 {
    sum_of(row, row, |x, _| x)
}

/// Σ `f(a_i`, `b_i`) over a row, in sixteen lanes.
#[inline(always)]
fn sum_of(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let (a_lanes, a_rest) = a.as_chunks::<16>();
    let (b_lanes, b_rest) = b.as_chunks::<16>();
    let mut lanes = [0.0_f32; 16];
    for (x, y) in a_lanes.iter().zip(b_lanes) {
        for i in 0..16 {
            lanes[i] += f(x[i], y[i]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| f(*x, *y)).sum();
    lanes.iter().sum::<f32>() + rest
}

/// Largest number of a row; −∞ for an empty one.
#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let (lanes, rest) = row.as_chunks::<16>();
    let mut most = [f32::NEG_INFINITY; 16];
    for x in lanes {
        for i in 0..16 {
            most[i] = if x[i] > most[i] { x[i] } else { most[i] };
        }
    }
    most.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
pub(super) mod testing {
    use candle_core::{Device, Tensor, Var};
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    /// A reproducible random tensor.
    pub(crate) fn random(seed: u64, shape: &[usize]) -> Tensor {
        let mut rng = StdRng::seed_from_u64(seed);
        let data: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
        Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
    }

    /// As a variable, for gradients by candle.
    pub(crate) fn variable(x: &Tensor) -> Var {
        Var::from_tensor(x).unwrap()
    }

    /// Largest difference.
    pub(crate) fn distance(a: &Tensor, b: &Tensor) -> f32 {
        assert_eq!(a.dims(), b.dims());
        (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn exp_is_exact_to_a_few_units_in_the_last_place() {
        for i in -870_000..880_000 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            let error = (f64::from(super::exp(x)) - exact).abs() / exact;
            assert!(error < 3e-7, "{x}: {error}");
        }
    }
}
