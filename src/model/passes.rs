//! Forward passes over many groups of windows, in the order that suits where the layers are: a resident decoder takes
//! one group through all layers before the next, so that memory does not grow with the groups; a streamed one takes
//! all groups through a layer before the next, so that every layer is read once.

use candle_core::Tensor;

use super::{Batch, Decoder, Residency, states::States};
use crate::checkpoint::Error;

/// Windows of one length that go through a layer together.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// Token ids, each of them [length].
    pub windows: Vec<&'a [u32]>,
}

impl<'a> Group<'a> {
    /// Cuts windows of `length` tokens into groups of about `tokens`, at least one window each.
    pub fn cut(windows: &'a [Vec<u32>], length: usize, tokens: usize) -> Vec<Self> {
        let at_once = (tokens / length.max(1)).max(1);
        windows.chunks(at_once).map(|group| Self { windows: group.iter().map(Vec::as_slice).collect() }).collect()
    }

    /// Its size.
    pub fn batch(&self) -> Batch {
        Batch { windows: self.windows.len(), length: self.windows.first().map_or(0, |window| window.len()) }
    }
}

/// Sees every group at every layer. Groups pass a layer in order, and so do layers for a group; no more is promised.
pub trait Visitor {
    /// `before` and `after` [tokens, hidden] are the hidden states of group `group` around layer `layer`.
    ///
    /// # Errors
    /// Ends the pass.
    fn layer(&mut self, group: usize, layer: usize, before: &Tensor, after: &Tensor) -> Result<(), Error>;

    /// `hidden` [tokens, hidden] is what group `group` is behind the last of them.
    ///
    /// # Errors
    /// Ends the pass.
    fn end(&mut self, group: usize, hidden: Tensor) -> Result<(), Error>;
}

/// Where a pass begins.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    /// At the first layer, with the tokens' embeddings.
    Tokens,
    /// At this layer, with the states in front of it.
    Layer(usize, &'a States),
}

impl Decoder {
    /// Takes all groups through the layers from `start` up to, but not including, `end`.
    ///
    /// # Errors
    /// Those of the visitor, of a layer that cannot be read, and of the device.
    pub fn visit(
        &self,
        groups: &[Group<'_>],
        start: Start<'_>,
        end: usize,
        visitor: &mut dyn Visitor,
    ) -> Result<(), Error> {
        match self.residency() {
            Residency::Resident => self.visit_by_group(groups, start, end, visitor),
            Residency::Streamed => self.visit_by_layer(groups, start, end, visitor),
        }
    }

    fn visit_by_group(
        &self,
        groups: &[Group<'_>],
        start: Start<'_>,
        end: usize,
        visitor: &mut dyn Visitor,
    ) -> Result<(), Error> {
        for (index, group) in groups.iter().enumerate() {
            let mut hidden = self.enter(index, group, start, start.layer())?;
            for layer in start.layer()..end {
                let after = self.block(layer)?.forward(&hidden, group.batch(), &self.rotary)?;
                visitor.layer(index, layer, &hidden, &after)?;
                hidden = after;
            }
            visitor.end(index, hidden)?;
        }
        Ok(())
    }

    fn visit_by_layer(
        &self,
        groups: &[Group<'_>],
        start: Start<'_>,
        end: usize,
        visitor: &mut dyn Visitor,
    ) -> Result<(), Error> {
        let states = self.states(groups)?;
        for (index, group) in groups.iter().enumerate() {
            states.put(index, &self.enter(index, group, start, start.layer())?)?;
        }
        for layer in start.layer()..end {
            let block = self.block(layer)?;
            for (index, group) in groups.iter().enumerate() {
                let before = states.get(index, &self.device)?;
                let after = block.forward(&before, group.batch(), &self.rotary)?;
                visitor.layer(index, layer, &before, &after)?;
                states.put(index, &after)?;
            }
        }
        for index in 0..groups.len() {
            visitor.end(index, states.get(index, &self.device)?)?;
        }
        Ok(())
    }

    /// The hidden states of group number `index` in front of layer `layer`, which is not below the start.
    ///
    /// # Errors
    /// Those of the device, and of states or layers that cannot be read.
    pub fn enter(&self, index: usize, group: &Group<'_>, start: Start<'_>, layer: usize) -> Result<Tensor, Error> {
        let hidden = match start {
            Start::Tokens => self.embed(&group.windows)?,
            Start::Layer(_, states) => states.get(index, &self.device)?,
        };
        self.forward(hidden, start.layer()..layer, group.batch())
    }

    /// Room on disk for the hidden states of all groups at one boundary.
    ///
    /// # Errors
    /// [`Error::Io`] when the scratch folder takes no file.
    pub fn states(&self, groups: &[Group<'_>]) -> Result<States, Error> {
        self.states_of(groups, self.config.hidden_size)
    }

    /// As [`Self::states`], for states of another width than the hidden ones.
    ///
    /// # Errors
    /// As [`Self::states`].
    pub fn states_of(&self, groups: &[Group<'_>], width: usize) -> Result<States, Error> {
        States::on_disk(&self.scratch, groups.iter().map(Group::batch), width)
    }
}

impl Start<'_> {
    const fn layer(self) -> usize {
        match self {
            Self::Tokens => 0,
            Self::Layer(layer, _) => layer,
        }
    }
}
