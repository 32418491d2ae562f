//! Hidden states at the input of every redundant layer, on disk: the iterative schedule works from the deepest layer
//! up, so what lies below the layer at work never changes, and memory does not grow with the calibration set.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::Error;
use crate::{
    checkpoint,
    model::{Decoder, Group, Start, States, Visitor},
};

/// The states in front of each layer, by layer.
pub(super) struct HiddenCache(BTreeMap<usize, States>);

impl HiddenCache {
    /// Runs the calibration windows forward once and keeps the input of each of `layers`.
    pub(super) fn fill(
        decoder: &Decoder,
        groups: &[Group<'_>],
        layers: &[usize],
        observe: &mut dyn FnMut(usize) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let states = layers.iter().map(|&layer| Ok((layer, decoder.states(groups)?)));
        let highest = layers.iter().max().copied().unwrap_or(0);
        let mut keeper = Keeper { states: states.collect::<Result<_, checkpoint::Error>>()?, highest, observe };
        decoder.visit(groups, Start::Tokens, highest, &mut keeper)?;
        Ok(Self(keeper.states))
    }

    /// Where a pass from layer `layer` on begins.
    pub(super) fn start(&self, layer: usize) -> Result<Start<'_>, Error> {
        let states = self.0.get(&layer).ok_or_else(|| Error::internal("the states of a layer were not kept"))?;
        Ok(Start::Layer(layer, states))
    }
}

struct Keeper<'a> {
    states: BTreeMap<usize, States>,
    highest: usize,
    observe: &'a mut dyn FnMut(usize) -> Result<(), Error>,
}

impl Visitor for Keeper<'_> {
    fn layer(&mut self, group: usize, layer: usize, before: &Tensor, _: &Tensor) -> Result<(), checkpoint::Error> {
        if let Some(states) = self.states.get(&layer) {
            states.put(group, before)?;
        }
        (self.observe)(layer).map_err(|_| checkpoint::Error::Cancelled)
    }

    fn end(&mut self, group: usize, hidden: Tensor) -> Result<(), checkpoint::Error> {
        self.states.get(&self.highest).map_or(Ok(()), |states| states.put(group, &hidden))
    }
}
