//! Stage 2: passes forward and backward over the calibration windows, and what is added up of them for the chosen
//! matrices: G = ∂L/∂W with L a window's mean loss, and the other sums of [`super::statistics`].

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::{
    Error,
    statistics::{Frames, LayerSums, Needs, Sink},
};
use crate::{
    checkpoint,
    eval::Windows,
    job::spec::Projection,
    model::{Batch, Block, Config, Decoder, Group, Residency, Saved, Start, States, Visitor},
};

/// Bytes of activations that may be kept for the backward pass; beyond, a layer's are computed again.
pub(super) const ACTIVATIONS: usize = 1024 << 20;
/// Tokens of one forward and backward pass, where windows are shorter.
const TOKENS_AT_ONCE: usize = 1024;

/// Which matrices are summed for: projections by layer.
pub(super) type Chosen = BTreeMap<usize, Vec<Projection>>;
/// Takes a layer's sums when they are complete.
pub(super) type Collect<'a> = &'a mut dyn FnMut(usize, LayerSums) -> Result<(), Error>;

/// Tokens of a group of windows of `length` tokens.
pub(super) const fn tokens_at_once(length: usize) -> usize {
    if length < TOKENS_AT_ONCE { TOKENS_AT_ONCE } else { length }
}

/// The calibration windows in the groups that go through the model together.
pub(super) fn groups(windows: &Windows) -> Vec<Group<'_>> {
    Group::cut(&windows.windows, windows.length, TOKENS_AT_ONCE)
}

/// What is added up, and for which matrices.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) chosen: &'a Chosen,
    pub(super) needs: Needs,
    /// The triplets, where the needs ask for their squared gradients.
    pub(super) frames: Option<&'a Frames>,
}

/// One pass over the calibration windows.
pub(super) struct Pass<'a> {
    pub(super) decoder: &'a Decoder,
    pub(super) groups: &'a [Group<'a>],
    /// Where the forward pass begins: not above the lowest chosen layer.
    pub(super) start: Start<'a>,
    pub(super) wanted: Wanted<'a>,
    /// Sees what the forward pass makes of the states in front of each layer from the lowest chosen one on.
    pub(super) see: &'a mut dyn FnMut(usize, &Tensor, &Tensor) -> Result<(), checkpoint::Error>,
    /// Gets (windows done, layer at work).
    pub(super) observe: &'a mut dyn FnMut(usize, usize) -> Result<(), Error>,
}

/// Adds up what is wanted of the chosen matrices over all windows, and hands it over layer by layer: all at the end for
/// a resident decoder, each as soon as it is complete for a streamed one.
pub(super) fn sum(pass: Pass<'_>, collect: Collect<'_>) -> Result<(), Error> {
    let Some(&lowest) = pass.wanted.chosen.keys().next() else { return Ok(()) };
    match pass.decoder.residency() {
        Residency::Resident => by_group(pass, lowest, collect),
        Residency::Streamed => by_layer(pass, lowest, collect),
    }
}

/// Every group forward and backward through all layers before the next.
fn by_group(pass: Pass<'_>, lowest: usize, collect: Collect<'_>) -> Result<(), Error> {
    let Pass { decoder, groups, start, wanted, see, observe } = pass;
    let mut sums: BTreeMap<usize, LayerSums> = BTreeMap::new();
    let mut done = 0;
    for (index, group) in groups.iter().enumerate() {
        let hidden = decoder.enter(index, group, start, lowest)?;
        let mut tape = Tape { decoder, batch: group.batch(), kept: Vec::new() };
        let hidden = tape.forward(hidden, lowest, &mut |layer, before, after| {
            see(layer, before, after)?;
            observe(done, layer)
        })?;
        let mut gradient = loss_gradient(decoder, &hidden, group)?;
        drop(hidden);
        for layer in (lowest..decoder.num_layers()).rev() {
            let (block, saved) = (decoder.block(layer)?, tape.pop(layer)?);
            gradient =
                backward(&block, &saved, &gradient, (decoder, group), (layer, wanted), sums.entry(layer).or_default())?;
            observe(done, layer)?;
        }
        done += group.windows.len();
        observe(done, lowest)?;
    }
    for (layer, sums) in sums {
        hand_over(layer, sums, wanted, collect)?;
    }
    Ok(())
}

/// All groups forward through the model, then all of them backward through each layer: every layer is read twice, and
/// of one layer only the sums are in memory. What waits between layers is on disk.
fn by_layer(pass: Pass<'_>, lowest: usize, collect: Collect<'_>) -> Result<(), Error> {
    let Pass { decoder, groups, start, wanted, see, observe } = pass;
    let layers = decoder.num_layers();
    let inputs = (lowest..layers).map(|_| decoder.states(groups)).collect::<Result<Vec<_>, _>>()?;
    let mut forward = Forward { decoder, groups, lowest, inputs, gradients: decoder.states(groups)?, see, observe };
    decoder.visit(groups, start, layers, &mut forward)?;
    let Forward { mut inputs, gradients: states, observe, .. } = forward;
    for layer in (lowest..layers).rev() {
        let (block, mut sums, mut done) = (decoder.block(layer)?, LayerSums::default(), 0);
        let input = inputs.pop().ok_or_else(|| Error::internal("a layer's input is missing"))?;
        for (index, group) in groups.iter().enumerate() {
            let before = input.get(index, &decoder.device)?;
            let saved = block.forward_saving(&before, group.batch(), &decoder.rotary)?.1;
            let gradient = states.get(index, &decoder.device)?;
            let gradient = backward(&block, &saved, &gradient, (decoder, group), (layer, wanted), &mut sums)?;
            states.put(index, &gradient)?;
            done += group.windows.len();
            observe(done, layer)?;
        }
        drop(block);
        hand_over(layer, sums, wanted, collect)?;
    }
    Ok(())
}

/// Keeps the input of every layer from `lowest` on, and the gradient at the end.
struct Forward<'a> {
    decoder: &'a Decoder,
    groups: &'a [Group<'a>],
    lowest: usize,
    inputs: Vec<States>,
    gradients: States,
    see: &'a mut dyn FnMut(usize, &Tensor, &Tensor) -> Result<(), checkpoint::Error>,
    observe: &'a mut dyn FnMut(usize, usize) -> Result<(), Error>,
}

impl Visitor for Forward<'_> {
    fn layer(&mut self, group: usize, layer: usize, before: &Tensor, after: &Tensor) -> Result<(), checkpoint::Error> {
        if layer >= self.lowest {
            self.inputs[layer - self.lowest].put(group, before)?;
            (self.see)(layer, before, after)?;
        }
        (self.observe)(0, layer).map_err(|_| checkpoint::Error::Cancelled)
    }

    fn end(&mut self, group: usize, hidden: Tensor) -> Result<(), checkpoint::Error> {
        let losses = self.decoder.head.losses(&hidden, &self.groups[group].windows, true)?;
        losses.gradient.map_or(Ok(()), |gradient| self.gradients.put(group, &gradient))
    }
}

fn loss_gradient(decoder: &Decoder, hidden: &Tensor, group: &Group<'_>) -> Result<Tensor, Error> {
    let losses = decoder.head.losses(hidden, &group.windows, true)?;
    losses.gradient.ok_or_else(|| Error::internal("the loss came without its gradient"))
}

/// ∂L/∂input of a layer; what is wanted of its chosen matrices is added to `sums`.
fn backward(
    block: &Block,
    saved: &Saved,
    gradient: &Tensor,
    (decoder, group): (&Decoder, &Group<'_>),
    (layer, wanted): (usize, Wanted<'_>),
    sums: &mut LayerSums,
) -> Result<Tensor, Error> {
    Ok(match wanted.chosen.get(&layer) {
        Some(projections) => {
            let Wanted { needs, frames, .. } = wanted;
            let mut sink = Sink { layer, projections, needs, frames, batch: group.batch(), sums };
            block.backward(saved, gradient, group.batch(), &decoder.rotary, &mut sink)?
        }
        None => block.backward(saved, gradient, group.batch(), &decoder.rotary, &mut ())?,
    })
}

fn hand_over(layer: usize, sums: LayerSums, wanted: Wanted<'_>, collect: Collect<'_>) -> Result<(), Error> {
    let Some(projections) = wanted.chosen.get(&layer) else { return Ok(()) };
    sums.check(layer, wanted.needs, projections)?;
    collect(layer, sums)
}

/// What is kept of a layer for the backward pass.
enum Kept {
    /// All it needs.
    Saved(Box<Saved>),
    /// Only the layer's input; the rest is computed again.
    Input(Tensor),
}

/// A group's forward pass, to be gone back.
struct Tape<'a> {
    decoder: &'a Decoder,
    batch: Batch,
    kept: Vec<Kept>,
}

impl Tape<'_> {
    /// Runs the layers from `lowest` up; returns the last hidden states.
    fn forward(
        &mut self,
        mut hidden: Tensor,
        lowest: usize,
        observe: &mut dyn FnMut(usize, &Tensor, &Tensor) -> Result<(), Error>,
    ) -> Result<Tensor, Error> {
        let Tape { decoder, batch, .. } = *self;
        let layers = decoder.num_layers();
        let keep = activation_bytes(&decoder.config, batch) * (layers - lowest) <= ACTIVATIONS;
        for layer in lowest..layers {
            let block = decoder.block(layer)?;
            let after = if keep {
                let (after, saved) = block.forward_saving(&hidden, batch, &decoder.rotary)?;
                self.kept.push(Kept::Saved(Box::new(saved)));
                after
            } else {
                let after = block.forward(&hidden, batch, &decoder.rotary)?;
                self.kept.push(Kept::Input(hidden.clone()));
                after
            };
            observe(layer, &hidden, &after)?;
            hidden = after;
        }
        Ok(hidden)
    }

    /// What the backward pass of the last layer that is left needs.
    fn pop(&mut self, layer: usize) -> Result<Saved, Error> {
        let Tape { decoder, batch, .. } = *self;
        match self.kept.pop() {
            Some(Kept::Saved(saved)) => Ok(*saved),
            Some(Kept::Input(input)) => Ok(decoder.block(layer)?.forward_saving(&input, batch, &decoder.rotary)?.1),
            None => Err(Error::internal("a layer's activations are missing")),
        }
    }
}

/// Bytes that [`crate::model::Block::forward_saving`] keeps of a batch.
pub(super) fn activation_bytes(config: &Config, batch: Batch) -> usize {
    let heads = config.num_heads + config.num_kv_heads;
    let per_token = 4 * config.hidden_size + 2 * heads * config.head_dim + 2 * config.intermediate_size;
    batch.tokens() * per_token * size_of::<f32>()
}
