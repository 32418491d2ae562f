//! Adapters on the layers that train, and their end in the matrices they stand on.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use candle_core::{Device, Tensor};

use super::schedule::derived;
use crate::{
    job::spec::{Projection, Recovery},
    model::{Adapter, Decoder, Dropout, Factors, Matrix, Round},
    pipeline::Error,
};

/// Puts an adapter on every matrix of `layers`, InLinear and OutLinear each on its own, so that merging keeps the shapes.
pub(super) fn attach(decoder: &mut Decoder, layers: &[usize], recovery: &Recovery, round: &Round) -> Result<(), Error> {
    let device = decoder.device.clone();
    let mut stream = 0;
    for &layer in layers {
        let block = decoder.block_mut(layer)?;
        for projection in Projection::ALL {
            let linear = block.projection_mut(projection);
            let weights = match &linear.matrix {
                Matrix::Dense(weight) => vec![weight],
                Matrix::Factored(Factors { input, output }) => vec![input, output],
            };
            let mut adapters = Vec::new();
            for weight in weights {
                stream += 1;
                adapters.push(adapter(
                    weight,
                    recovery,
                    Dropout::new(recovery.dropout as f32, stream, round.clone()),
                    &device,
                    stream,
                )?);
            }
            linear.adapters = adapters;
        }
    }
    Ok(())
}

/// A is uniform within 1/√in of nought and B is nought, as usual: the adapter begins as no change.
fn adapter(
    weight: &Tensor,
    recovery: &Recovery,
    dropout: Dropout,
    device: &Device,
    stream: u64,
) -> Result<Adapter, Error> {
    let (out, input) = weight.dims2()?;
    let rank = recovery.rank.min(out).min(input);
    let mut rng = StdRng::seed_from_u64(derived(recovery.seed, stream, u64::MAX));
    let reach = 1.0 / (input as f32).sqrt();
    let down: Vec<f32> = (0..rank * input).map(|_| rng.random_range(-reach..reach)).collect();
    Ok(Adapter {
        down: Tensor::from_vec(down, (rank, input), device)?,
        up: Tensor::zeros((out, rank), weight.dtype(), device)?,
        scale: recovery.alpha / rank as f64,
        dropout,
    })
}

/// Merges the adapters of `layers` into their matrices.
pub(super) fn merge(decoder: &mut Decoder, layers: &[usize]) -> Result<(), Error> {
    for &layer in layers {
        let block = decoder.block_mut(layer)?;
        for projection in Projection::ALL {
            let linear = block.projection_mut(projection);
            linear.matrix = linear.merged()?;
            linear.adapters.clear();
        }
    }
    Ok(())
}
