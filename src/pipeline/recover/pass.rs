//! One micro-batch forward, and back down to the shallowest layer that trains.

use candle_core::Tensor;

use super::batches::MicroBatch;
use crate::{
    model::{Batch, Collect, Decoder, Gradients, Saved, Scope},
    pipeline::{
        Error,
        gradients::{ACTIVATIONS, activation_bytes},
    },
};

/// What trains, and where its gradients go.
pub(super) struct Pass<'a> {
    pub(super) decoder: &'a Decoder,
    /// The layers that train, ascending.
    pub(super) layers: &'a [usize],
    pub(super) scope: Scope,
}

/// What is kept of a layer for the backward pass.
enum Kept {
    /// All it needs.
    Saved(Box<Saved>),
    /// Only the layer's input; the rest is computed again.
    Input(Tensor),
}

/// Mean loss of the targets of `batches`, without dropout; `observe` gets the batches done.
pub(super) fn mean_loss(
    decoder: &Decoder,
    batches: &[MicroBatch],
    observe: &mut dyn FnMut(usize) -> Result<(), Error>,
) -> Result<f64, Error> {
    let (mut loss, mut targets) = (0.0, 0);
    for (index, micro) in batches.iter().enumerate() {
        let (windows, batch) = shape(micro);
        let hidden = decoder.forward(decoder.embed(&windows)?, 0..decoder.num_layers(), batch)?;
        loss += decoder.head.losses_at(&hidden, &micro.positions, &micro.targets, None)?.tokens.iter().sum::<f64>();
        targets += micro.targets.len();
        observe(index + 1)?;
    }
    Ok(loss / targets as f64)
}

impl Pass<'_> {
    /// Summed loss of the micro-batch's targets; adds the gradients of `weight` times it to `sums`. `observe` is called after each layer.
    pub(super) fn learn(
        &self,
        micro: &MicroBatch,
        weight: f32,
        sums: &mut Gradients,
        observe: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<f64, Error> {
        let Pass { decoder, layers, scope } = *self;
        let (windows, batch) = shape(micro);
        let lowest = layers.first().copied().unwrap_or(0);
        let all = decoder.num_layers();
        let keep = activation_bytes(&decoder.config, batch) * (all - lowest) <= ACTIVATIONS;
        let mut hidden = decoder.forward(decoder.embed(&windows)?, 0..lowest, batch)?;
        let mut kept = Vec::with_capacity(all - lowest);
        for layer in lowest..all {
            let (after, saved) = decoder.block(layer)?.forward_saving(&hidden, batch, &decoder.rotary)?;
            kept.push(if keep { Kept::Saved(Box::new(saved)) } else { Kept::Input(hidden) });
            hidden = after;
            observe()?;
        }
        let losses = decoder.head.losses_at(&hidden, &micro.positions, &micro.targets, Some(weight))?;
        drop(hidden);
        let mut gradient = losses.gradient.ok_or_else(|| Error::internal("the loss came without its gradient"))?;
        for (layer, kept) in (lowest..all).zip(kept).rev() {
            let block = &*decoder.block(layer)?;
            let saved = match kept {
                Kept::Saved(saved) => *saved,
                Kept::Input(input) => block.forward_saving(&input, batch, &decoder.rotary)?.1,
            };
            gradient = match layers.contains(&layer) {
                true => {
                    let mut sink = Collect { block, layer, scope, sums };
                    block.backward(&saved, &gradient, batch, &decoder.rotary, &mut sink)?
                }
                false => block.backward(&saved, &gradient, batch, &decoder.rotary, &mut ())?,
            };
            observe()?;
        }
        Ok(losses.tokens.iter().sum())
    }
}

fn shape(micro: &MicroBatch) -> (Vec<&[u32]>, Batch) {
    let windows: Vec<&[u32]> = micro.windows.iter().map(Vec::as_slice).collect();
    let batch = Batch { windows: windows.len(), length: windows.first().map_or(0, |window| window.len()) };
    (windows, batch)
}
