//! `AdamW` (arXiv 1711.05101), in place, as torch computes it.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{
    TASK,
    accumulate::{update, update3},
    is_fused, numbers, sum_of, vectorised, wide,
};

/// One step's settings.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// The step, from 1: the averages begin at nought, which is corrected for.
    pub step: usize,
    /// Learning rate.
    pub learning_rate: f64,
    /// Share of the weights taken away at each step, times the learning rate.
    pub weight_decay: f64,
    /// What gradients are multiplied by first: less than 1 where they are clipped.
    pub gradient_scale: f64,
}

/// Decay of the average of gradients, and of the average of their squares.
const BETAS: (f64, f64) = (0.9, 0.999);
const EPS: f64 = 1e-8;

/// What the optimiser knows of a parameter: running averages of its gradient and of the square of it.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Of the gradient.
    pub first: Tensor,
    /// Of its square.
    pub second: Tensor,
}

impl Moments {
    /// Those of a parameter that was never stepped.
    pub fn new(parameter: &Tensor) -> Result<Self> {
        Ok(Self { first: parameter.zeros_like()?, second: parameter.zeros_like()? })
    }
}

impl AdamW {
    /// Takes the step: `parameter` and `moments` change in place, so that every holder of them sees it.
    pub fn apply(&self, parameter: &Tensor, moments: &Moments, gradient: &Tensor) -> Result<()> {
        let (beta1, beta2) = BETAS;
        let corrections = (1.0 - beta1.powf(self.step as f64), 1.0 - beta2.powf(self.step as f64));
        let keep = 1.0 - self.learning_rate * self.weight_decay;
        let size = self.learning_rate / corrections.0;
        let root = corrections.1.sqrt();
        if !is_fused(parameter) {
            return self.composed(parameter, moments, gradient, (keep, size, root));
        }
        let scale = self.gradient_scale as f32;
        let (old, new) = (beta1 as f32, (1.0 - beta1) as f32 * scale);
        update(&moments.first, gradient, |m, g| old * m + new * g)?;
        let (old, new) = (beta2 as f32, (1.0 - beta2) as f32 * scale * scale);
        update(&moments.second, gradient, |v, g| old * v + new * g * g)?;
        let (keep, size, root, eps) = (keep as f32, size as f32, root as f32, EPS as f32);
        update3(parameter, &moments.first, &moments.second, |p, m, v| keep * p - size * m / (v.sqrt() / root + eps))
    }

    fn composed(
        &self,
        parameter: &Tensor,
        Moments { first, second }: &Moments,
        gradient: &Tensor,
        (keep, size, root): (f64, f64, f64),
    ) -> Result<()> {
        let (beta1, beta2) = BETAS;
        let gradient = (gradient * self.gradient_scale)?;
        first.slice_set(&((first * beta1)? + (&gradient * (1.0 - beta1))?)?, 0, 0)?;
        second.slice_set(&((second * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?, 0, 0)?;
        let change = ((first * size)? / ((second.sqrt()? / root)? + EPS)?)?;
        parameter.slice_set(&((parameter * keep)? - change)?, 0, 0)
    }
}

/// Σ x², in double precision over pieces of a few thousand numbers.
pub fn squared_norm(x: &Tensor) -> Result<f64> {
    if !is_fused(x) {
        return Ok(f64::from(wide(x)?.sqr()?.sum_all()?.to_scalar::<f32>()?));
    }
    let guard = numbers(x)?;
    let piece = |x: &[f32]| {
        vectorised(
            #[inline(always)]
            || f64::from(sum_of(x, x, |a, b| a * b)),
        )
    };
    // Summed in order, so that the same numbers always give the same sum.
    let pieces: Vec<f64> = guard.get()?.par_chunks(TASK / 8).with_min_len(8).map(piece).collect();
    Ok(pieces.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    // torch.optim.AdamW([p], lr=0.1, weight_decay=0.5) with p = [1, -2, 3], three steps of the gradient [0.5, -1, 0]:
    #[test]
    fn three_steps_are_those_of_torch() {
        let device = candle_core::Device::Cpu;
        let expected = [0.572_124_958, -1.429_499_865, 2.572_124_958];
        for composed in [false, true] {
            let parameter = Tensor::new(&[1.0_f32, -2.0, 3.0], &device).unwrap();
            let moments = Moments::new(&parameter).unwrap();
            let gradient = Tensor::new(&[1.0_f32, -2.0, 0.0], &device).unwrap();
            for step in 1..=3 {
                let adamw = AdamW { step, learning_rate: 0.1, weight_decay: 0.5, gradient_scale: 0.5 };
                if composed {
                    let corrections = (1.0 - 0.9_f64.powf(step as f64), 1.0 - 0.999_f64.powf(step as f64));
                    let numbers = (0.95, 0.1 / corrections.0, corrections.1.sqrt());
                    adamw.composed(&parameter, &moments, &gradient, numbers).unwrap();
                } else {
                    adamw.apply(&parameter, &moments, &gradient).unwrap();
                }
            }
            let expected = Tensor::new(&expected.map(|x: f64| x as f32), &device).unwrap();
            assert!(distance(&parameter, &expected) < 1e-5, "{parameter}");
        }
    }

    #[test]
    fn the_norm_is_that_of_candle() {
        let x = random(1, &[300, 41]);
        let expected = f64::from(x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap());
        assert!((squared_norm(&x).unwrap() / expected - 1.0).abs() < 1e-5);
    }
}
