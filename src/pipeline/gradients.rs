//! Stage 2: G = ∂L/∂W of the chosen matrices, summed over the calibration windows; L is a window's mean loss.

use std::collections::BTreeMap;

use candle_core::{Result as DeviceResult, Tensor};

use super::Error;
use crate::{
    checkpoint,
    eval::Windows,
    job::spec::Projection,
    model::{Batch, Decoder, GradientSink, Saved},
};

/// Bytes of activations that may be kept for the backward pass; beyond, a layer's are computed again.
const ACTIVATIONS: usize = 768 << 20;
/// Tokens of one forward and backward pass, where windows are shorter.
const TOKENS_AT_ONCE: usize = 512;

/// G [out, in] by layer and projection.
pub(super) type Gradients = BTreeMap<(usize, Projection), Tensor>;

/// Where the hidden states at the input of a layer come from.
pub(super) trait Hidden {
    /// Hidden states [tokens, hidden] at the input of layer `layer` for the windows from `first` on.
    fn at(&self, decoder: &Decoder, layer: usize, first: usize, windows: &[&[u32]]) -> Result<Tensor, Error>;
}

/// Computed from the tokens each time.
pub(super) struct FromTokens;

impl Hidden for FromTokens {
    fn at(&self, decoder: &Decoder, layer: usize, _: usize, windows: &[&[u32]]) -> Result<Tensor, Error> {
        let batch = Batch { windows: windows.len(), length: windows.first().map_or(0, |window| window.len()) };
        Ok(decoder.forward(decoder.embed(windows)?, 0..layer, batch)?)
    }
}

/// Which gradients are wanted: projections by layer.
pub(super) type Chosen = BTreeMap<usize, Vec<Projection>>;

/// Sums the gradients of the chosen matrices over all windows. `observe` gets (windows done, windows, layer at work).
pub(super) fn sum(
    decoder: &Decoder,
    windows: &Windows,
    chosen: &Chosen,
    source: &dyn Hidden,
    observe: &mut dyn FnMut(usize, usize) -> Result<(), Error>,
) -> Result<Gradients, Error> {
    let mut gradients = Gradients::new();
    let Some(&lowest) = chosen.keys().next() else { return Ok(gradients) };
    let at_once = (TOKENS_AT_ONCE / windows.length).max(1);
    let mut done = 0;
    for group in windows.windows.chunks(at_once) {
        let group: Vec<&[u32]> = group.iter().map(Vec::as_slice).collect();
        let hidden = source.at(decoder, lowest, done, &group)?;
        let mut pass =
            Pass { decoder, batch: Batch { windows: group.len(), length: windows.length }, kept: Vec::new() };
        let (hidden, keep) = pass.forward(hidden, lowest, &mut |layer| observe(done, layer))?;
        let losses = decoder.head.losses(&hidden, &group, true)?;
        let gradient = losses.gradient.ok_or_else(|| Error::internal("the loss came without its gradient"))?;
        pass.backward(gradient, lowest, keep, chosen, &mut gradients, &mut |layer| observe(done, layer))?;
        done += group.len();
        observe(done, lowest)?;
    }
    check(&gradients, chosen)?;
    Ok(gradients)
}

/// What is kept of a layer for the backward pass.
enum Kept {
    /// All it needs.
    Saved(Box<Saved>),
    /// Only the layer's input; the rest is computed again.
    Input(Tensor),
}

struct Pass<'a> {
    decoder: &'a Decoder,
    batch: Batch,
    kept: Vec<Kept>,
}

impl Pass<'_> {
    /// Runs the layers from `lowest` up; returns the last hidden states and whether everything was kept.
    fn forward(
        &mut self,
        mut hidden: Tensor,
        lowest: usize,
        observe: &mut dyn FnMut(usize) -> Result<(), Error>,
    ) -> Result<(Tensor, bool), Error> {
        let Pass { decoder, batch, .. } = *self;
        let layers = decoder.blocks.len();
        let keep = activation_bytes(decoder, batch) * (layers - lowest) <= ACTIVATIONS;
        for layer in lowest..layers {
            let block = &decoder.blocks[layer];
            if keep {
                let (after, saved) = block.forward_saving(&hidden, batch, &decoder.rotary)?;
                self.kept.push(Kept::Saved(Box::new(saved)));
                hidden = after;
            } else {
                let after = block.forward(&hidden, batch, &decoder.rotary)?;
                self.kept.push(Kept::Input(hidden));
                hidden = after;
            }
            observe(layer)?;
        }
        Ok((hidden, keep))
    }

    fn backward(
        &mut self,
        mut gradient: Tensor,
        lowest: usize,
        keep: bool,
        chosen: &Chosen,
        gradients: &mut Gradients,
        observe: &mut dyn FnMut(usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Pass { decoder, batch, .. } = *self;
        for layer in (lowest..decoder.blocks.len()).rev() {
            let block = &decoder.blocks[layer];
            let saved = match self.kept.pop() {
                Some(Kept::Saved(saved)) => *saved,
                Some(Kept::Input(input)) => block.forward_saving(&input, batch, &decoder.rotary)?.1,
                None => return Err(Error::internal("a layer's activations are missing")),
            };
            gradient = match chosen.get(&layer) {
                Some(projections) => {
                    let mut sink = Sum { layer, projections, gradients: &mut *gradients };
                    block.backward(&saved, &gradient, batch, &decoder.rotary, &mut sink)?
                }
                None => block.backward(&saved, &gradient, batch, &decoder.rotary, &mut ())?,
            };
            if !keep {
                observe(layer)?;
            }
        }
        Ok(())
    }
}

/// Adds gyᵀ x to the sum of a layer's projection.
struct Sum<'a> {
    layer: usize,
    projections: &'a [Projection],
    gradients: &'a mut Gradients,
}

impl GradientSink for Sum<'_> {
    fn accept(&mut self, projection: Projection, x: &Tensor, gy: &Tensor) -> DeviceResult<()> {
        if !self.projections.contains(&projection) {
            return Ok(());
        }
        // [out, tokens] · [tokens, in]
        let product = gy.t()?.matmul(x)?;
        let key = (self.layer, projection);
        let sum = match self.gradients.remove(&key) {
            Some(sum) => (sum + product)?,
            None => product,
        };
        self.gradients.insert(key, sum);
        Ok(())
    }
}

/// Bytes that [`crate::model::Block::forward_saving`] keeps of a batch.
fn activation_bytes(decoder: &Decoder, batch: Batch) -> usize {
    let config = &decoder.config;
    let heads = config.num_heads + config.num_kv_heads;
    let per_token = 4 * config.hidden_size + 2 * heads * config.head_dim + 2 * config.intermediate_size;
    batch.tokens() * per_token * size_of::<f32>()
}

/// A gradient that is missing or not finite ends the job: it must never be taken for "unimportant".
fn check(gradients: &Gradients, chosen: &Chosen) -> Result<(), Error> {
    for (&layer, projections) in chosen {
        for &projection in projections {
            let name = crate::model::module_name(layer, projection.path());
            let Some(gradient) = gradients.get(&(layer, projection)) else {
                return Err(Error::internal(format!("no gradient reached {name}")));
            };
            let norm: f32 = gradient
                .sqr()
                .and_then(|g| g.sum_all())
                .and_then(|g| g.to_scalar())
                .map_err(checkpoint::Error::from)?;
            if !norm.is_finite() {
                return Err(Error::numerical(format!("the gradient of {name} is not finite")));
            }
        }
    }
    Ok(())
}
