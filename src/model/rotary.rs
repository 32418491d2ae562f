use std::f64::consts::TAU;

use candle_core::{Device, Result, Tensor};

use super::{
    Batch,
    config::{Config, Rope, RopeScaling},
    ops,
};

/// Rotary position embedding: pairs (`x_i`, x_{i + d/2}) of a head turn by an angle that grows with the position.
pub struct Rotary {
    /// cos and sin, each [positions, `head_dim` / 2].
    cos: Tensor,
    sin: Tensor,
}

/// Which way a head is turned: the backward pass turns gradients back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Forward,
    Back,
}

impl Rotary {
    /// The angles of the first `positions` positions.
    pub fn new(config: &Config, positions: usize, device: &Device) -> Result<Self> {
        let frequencies = frequencies(config.rope, config.head_dim);
        let angles = |f: fn(f64) -> f64| -> Vec<f32> {
            (0..positions).flat_map(|p| frequencies.iter().map(move |w| f(p as f64 * w) as f32)).collect()
        };
        let shape = (positions, frequencies.len());
        Ok(Self {
            cos: Tensor::from_vec(angles(f64::cos), shape, device)?,
            sin: Tensor::from_vec(angles(f64::sin), shape, device)?,
        })
    }

    /// Positions it knows.
    pub fn positions(&self) -> usize {
        self.cos.dims().first().copied().unwrap_or(0)
    }

    /// The angles of these positions only, in their order.
    pub(super) fn at(&self, positions: &Tensor) -> Result<Self> {
        Ok(Self { cos: self.cos.index_select(positions, 0)?, sin: self.sin.index_select(positions, 0)? })
    }

    /// Turns `x` [tokens, heads · `head_dim`].
    pub(super) fn apply(&self, x: &Tensor, batch: Batch, turn: Turn) -> Result<Tensor> {
        ops::rotate(x, batch, &self.cos, &self.sin, turn)
    }
}

fn frequencies(rope: Rope, head_dim: usize) -> Vec<f64> {
    (0..head_dim / 2).map(|i| scaled(rope.theta.powf(-2.0 * i as f64 / head_dim as f64), rope.scaling)).collect()
}

fn scaled(frequency: f64, scaling: RopeScaling) -> f64 {
    match scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
            let wavelength = TAU / frequency;
            if wavelength < original / high_freq_factor {
                frequency
            } else if wavelength > original / low_freq_factor {
                frequency / factor
            } else {
                let blend = (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                (1.0 - blend) * frequency / factor + blend * frequency
            }
        }
    }
}
