//! `SwiGLU`: a = silu(gate) · up, silu(x) = x / (1 + e⁻ˣ).

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{TASK, exp, is_fused, numbers, vectorised, wide};

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// silu(`gate`) · `up`, both of one shape.
pub(in crate::model) fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if !is_fused(gate) {
        return (wide(gate)?.silu()? * wide(up)?)?.to_dtype(gate.dtype());
    }
    let (gate_guard, up_guard) = (numbers(gate)?, numbers(up)?);
    let (gate_all, up_all) = (gate_guard.get()?, up_guard.get()?);
    let mut a = vec![0.0; gate_all.len()];
    a.par_chunks_mut(TASK).zip(gate_all.par_chunks(TASK)).zip(up_all.par_chunks(TASK)).for_each(|((a, gate), up)| {
        vectorised(
            #[inline(always)]
            || {
                for ((a, gate), up) in a.iter_mut().zip(gate).zip(up) {
                    *a = gate * sigmoid(*gate) * up;
                }
            },
        );
    });
    Tensor::from_vec(a, gate.shape(), gate.device())
}

/// (∂L/∂gate, ∂L/∂up) from `ga` = ∂L/∂a.
pub(in crate::model) fn swiglu_backward(gate: &Tensor, up: &Tensor, ga: &Tensor) -> Result<(Tensor, Tensor)> {
    if !is_fused(gate) {
        return composed_backward(gate, up, ga);
    }
    let (gate_guard, up_guard, ga_guard) = (numbers(gate)?, numbers(up)?, numbers(ga)?);
    let (gate_all, up_all, ga_all) = (gate_guard.get()?, up_guard.get()?, ga_guard.get()?);
    let (mut g_gate, mut g_up) = (vec![0.0; gate_all.len()], vec![0.0; gate_all.len()]);
    let outputs = g_gate.par_chunks_mut(TASK).zip(g_up.par_chunks_mut(TASK));
    let inputs = gate_all.par_chunks(TASK).zip(up_all.par_chunks(TASK)).zip(ga_all.par_chunks(TASK));
    outputs.zip(inputs).for_each(|((g_gate, g_up), ((gate, up), ga))| {
        vectorised(
            #[inline(always)]
            || {
                let outputs = g_gate.iter_mut().zip(g_up);
                for ((g_gate, g_up), ((gate, up), ga)) in outputs.zip(gate.iter().zip(up).zip(ga)) {
                    let s = sigmoid(*gate);
                    *g_up = ga * gate * s;
                    *g_gate = ga * up * s * (1.0 + gate * (1.0 - s));
                }
            },
        );
    });
    let wrap = |data| Tensor::from_vec(data, gate.shape(), gate.device());
    Ok((wrap(g_gate)?, wrap(g_up)?))
}

fn composed_backward(gate: &Tensor, up: &Tensor, ga: &Tensor) -> Result<(Tensor, Tensor)> {
    let dtype = gate.dtype();
    let (gate, up, ga) = (wide(gate)?, wide(up)?, wide(ga)?);
    let s = (gate.neg()?.exp()? + 1.0)?.recip()?;
    let slope = (&s * ((&gate * (1.0 - &s)?)? + 1.0)?)?;
    Ok((((&ga * up)? * slope)?.to_dtype(dtype)?, ((ga * gate)? * s)?.to_dtype(dtype)?))
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn forward_and_backward_agree_with_candle() {
        let (gate, up, ga) = (random(1, &[3, 50]), random(2, &[3, 50]), random(3, &[3, 50]));
        let (gate_var, up_var) = (variable(&gate), variable(&up));
        let a = (gate_var.silu().unwrap() * up_var.as_tensor()).unwrap();
        assert!(distance(&a, &swiglu(&gate, &up).unwrap()) < 1e-6);
        let gradients = (a * &ga).unwrap().sum_all().unwrap().backward().unwrap();
        for (g_gate, g_up) in [swiglu_backward(&gate, &up, &ga).unwrap(), composed_backward(&gate, &up, &ga).unwrap()] {
            assert!(distance(gradients.get(gate_var.as_tensor()).unwrap(), &g_gate) < 1e-6);
            assert!(distance(gradients.get(up_var.as_tensor()).unwrap(), &g_up) < 1e-6);
        }
    }
}
