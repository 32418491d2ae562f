//! Refinement: the factors are made once more, layer by layer from the first, on what the compressed model's matrices get.
//!
//! Ranks are chosen on the dense model at once. Behind the first compressed layer, though, a matrix no longer gets the
//! dense model's x but x′. So each layer is decomposed anew at its ranks, with C′ = E[x′ x′ᵀ] in place of C and, in place
//! of W, the matrix W + θ W K C′⁻¹ with K = E[(x − x′) x′ᵀ] ([`Target`]). With θ = 1 its outputs of x′ come as close to W x as
//! a matrix can bring them on the calibration text; but that learns the text by heart and damps what x′ does not foretell, so
//! that other text suffers: [`TOWARDS_DENSE`]. A, the weights of the outputs, stays that of the dense model.

use std::{path::Path, sync::Arc};

use candle_core::Tensor;
use rayon::prelude::*;
use safetensors::Dtype;

use super::{
    Context, Error,
    compress::{Compressed, SUMS, Task},
    factorize::{FactorNumbers, Triplets, Vectors, named},
    piece::{REGULARISATION, at_once, output_factor},
    state::State,
    statistics::{LayerSums, Needs},
};
use crate::{
    checkpoint::{Pending, Weights, narrow, write_safetensors},
    job::{Progress, Stage, spec::Projection},
    linalg::{Cholesky, Target, Weighting, weighted_svd},
    model::{Batch, Block, Decoder, Group, Matrix, States, accumulate, add_gram, subtract},
};

/// θ, how far a matrix goes towards the dense model's outputs. Chosen on text that is neither calibrated on nor scored on
/// (SmolLM2-135M at 18.7 % of the linear parameters, another part of wikitext2's validation split and that of ptb): ¼ gives
/// 47.32 and 87.57, ½ 47.31 and 87.29, ¾ 47.83 and 88.34. On the test splits, with C regularised by 1e-4, none of it loses 2 % more than ½, all of it 10 %.
const TOWARDS_DENSE: f64 = 0.5;

/// The part of the factorization that its progress names.
pub(super) const PART: &str = "refine";

/// Tokens that go through both models at once.
const TOKENS_AT_ONCE: usize = 2048;

/// The projections that share an input, by the first of them, in the order in which a layer comes to them.
const SITES: [Projection; 4] = [Projection::QProj, Projection::OProj, Projection::GateProj, Projection::DownProj];

/// Makes the factors of all `matrices`, in model order, of which some triplets are kept. What an earlier attempt finished
/// is read.
pub(super) fn refine(
    decoder: &Decoder,
    matrices: &mut [Compressed],
    task: &Task<'_>,
    state: &mut State,
    context: &Context<'_>,
) -> Result<(), Error> {
    let mut layers: Vec<usize> =
        matrices.iter().filter(|matrix| matrix.is_chosen()).map(|matrix| matrix.layer).collect();
    layers.dedup();
    let (Some(&first), Some(&last)) = (layers.first(), layers.last()) else { return Ok(()) };
    let of = |layer: usize| {
        matrices.partition_point(|matrix| matrix.layer < layer)
            ..matrices.partition_point(|matrix| matrix.layer <= layer)
    };
    let ranges: Vec<_> = (first..=last).map(of).collect();
    for &layer in layers.iter().filter(|&&layer| is_finished(layer, state)) {
        read(&Weights::open(&state.path(&name(layer)))?, &mut matrices[ranges[layer - first].clone()])?;
    }
    let Some(&unfinished) = layers.iter().rfind(|&&layer| !is_finished(layer, state)) else { return Ok(()) };
    let groups = Group::cut(&task.windows.windows, task.windows.length, TOKENS_AT_ONCE);
    let held = held_bytes(decoder, &groups);
    // Half of the memory at most: the decompositions have the rest.
    let in_memory = held <= task.memory / 2;
    let task = &Task { memory: task.memory - if in_memory { held } else { 0 }, ..*task };
    let walk = state.timed(Stage::Factorize, |_| Walk::begin(decoder, &groups, in_memory, first))?;
    for (layer, range) in (first..=unfinished).zip(ranges) {
        let progress = Progress::new(Stage::Factorize, (layer - first) as u64, (last + 1 - first) as u64);
        context.progress(Progress { layer: Some(layer), part: Some(PART.to_owned()), ..progress })?;
        let wanted = layers.contains(&layer) && !is_finished(layer, state);
        let own = &mut matrices[range];
        state.timed(Stage::Factorize, |state| walk.layer(layer, own, wanted.then_some((task, &*state))))?;
        if wanted {
            state.write_folder(&name(layer), |folder| write(folder, own))?;
            state.finished.pieces.push(name(layer));
            state.step(context)?;
        }
    }
    Ok(())
}

/// How the folders of this stage in the work folder begin.
const PREFIX: &str = "refined-";

/// A layer's folder in the work folder.
fn name(layer: usize) -> String {
    format!("{PREFIX}{layer:04}")
}

/// Whether a piece's name is one of this stage.
pub(super) fn is_refined(name: &str) -> bool {
    name.starts_with(PREFIX)
}

fn is_finished(layer: usize, state: &State) -> bool {
    state.finished.pieces.contains(&name(layer))
}

/// Both models' hidden states on their way through the layers.
struct Walk<'a> {
    decoder: &'a Decoder,
    groups: &'a [Group<'a>],
    dense: Way,
    compressed: Way,
}

impl<'a> Walk<'a> {
    /// In front of the first layer that changes, where both models still have the same states.
    fn begin(decoder: &'a Decoder, groups: &'a [Group<'a>], in_memory: bool, first: usize) -> Result<Self, Error> {
        let way = || Way::new(decoder, groups, in_memory);
        let walk = Self { decoder, groups, dense: way()?, compressed: way()? };
        for (index, group) in groups.iter().enumerate() {
            let hidden = decoder.forward(decoder.embed(&group.windows)?, 0..first, group.batch())?;
            walk.dense.hidden.put(index, &hidden)?;
            walk.compressed.hidden.put(index, &hidden)?;
        }
        Ok(walk)
    }

    /// Takes both models through a layer, and makes the factors of its `matrices` on the way, where they are wanted.
    fn layer(
        &self,
        layer: usize,
        matrices: &mut [Compressed],
        wanted: Option<(&Task<'_>, &State)>,
    ) -> Result<(), Error> {
        let dense = self.decoder.block(layer)?;
        let mut compressed = Block::clone(&dense);
        let outputs = wanted.map(|(task, state)| output_sums(layer, task, self.decoder, state)).transpose()?;
        for site in SITES {
            let at_site = |matrix: &&mut Compressed| matrix.projection.input_group() == site && matrix.is_chosen();
            let mut own: Vec<&mut Compressed> = matrices.iter_mut().filter(at_site).collect();
            let moments = self.pass(site, (&dense, &compressed), outputs.is_some() && !own.is_empty())?;
            if let (Some(moments), Some(outputs), Some((task, _))) = (moments, &outputs, wanted) {
                let fit = Fit { block: &dense, moments: moments.numbers(task)?, outputs, task };
                for some in own.chunks_mut(at_once(self.decoder, task)) {
                    some.par_iter_mut().with_max_len(1).try_for_each(|matrix| fit.factors(matrix))?;
                }
            }
            for matrix in own {
                if let Some(factors) = matrix.tensors(None, &self.decoder.device)? {
                    compressed.projection_mut(matrix.projection).matrix = Matrix::Factored(factors);
                }
            }
        }
        for (index, group) in self.groups.iter().enumerate() {
            let at = At { decoder: self.decoder, index, batch: group.batch() };
            self.dense.leave(&dense, at)?;
            self.compressed.leave(&compressed, at)?;
        }
        Ok(())
    }

    /// Takes all groups to a site; adds up what its projections get there, if `wanted`.
    fn pass(&self, site: Projection, blocks: (&Block, &Block), wanted: bool) -> Result<Option<Moments>, Error> {
        let mut moments: Option<Moments> = None;
        for (index, group) in self.groups.iter().enumerate() {
            let at = At { decoder: self.decoder, index, batch: group.batch() };
            // x and x′ [tokens, in]
            let (x, renewed) = (self.dense.input(blocks.0, site, at)?, self.compressed.input(blocks.1, site, at)?);
            if wanted {
                let cross = subtract(x.copy()?, &renewed)?.t()?.matmul(&renewed)?;
                let (input, cross) = match moments {
                    Some(sum) => (add_gram(Some(sum.input), &renewed)?, accumulate(sum.cross, &cross)?),
                    None => (add_gram(None, &renewed)?, cross),
                };
                moments = Some(Moments { input, cross });
            }
        }
        Ok(moments)
    }
}

/// One group of windows at one layer.
#[derive(Clone, Copy)]
struct At<'a> {
    decoder: &'a Decoder,
    index: usize,
    batch: Batch,
}

/// The projections whose inputs are as wide as the states of a [`Way`].
const WAY: [Projection; 3] = [Projection::QProj, Projection::OProj, Projection::DownProj];

/// Bytes of both models' states in memory.
fn held_bytes(decoder: &Decoder, groups: &[Group<'_>]) -> u64 {
    let tokens: usize = groups.iter().map(|group| group.batch().tokens()).sum();
    let widths: usize = WAY.iter().map(|&site| decoder.config.projection_shape(site)[1]).sum();
    (2 * tokens * widths * size_of::<f32>()) as u64
}

/// One model's states inside a layer.
struct Way {
    /// The residual stream.
    hidden: States,
    /// What `o_proj` gets.
    attended: States,
    /// What `down_proj` gets.
    activated: States,
}

impl Way {
    fn new(decoder: &Decoder, groups: &[Group<'_>], in_memory: bool) -> Result<Self, Error> {
        let states = |site: Projection| match in_memory {
            true => Ok(States::in_memory(groups.len())),
            false => decoder.states_of(groups, decoder.config.projection_shape(site)[1]),
        };
        let [hidden, attended, activated] = WAY;
        Ok(Self { hidden: states(hidden)?, attended: states(attended)?, activated: states(activated)? })
    }

    /// What the projections of a site get [tokens, in], once those of the site before have given.
    fn input(&self, block: &Block, site: Projection, at: At<'_>) -> Result<Tensor, Error> {
        let At { decoder: Decoder { device, rotary, .. }, index, batch } = at;
        let hidden = self.hidden.get(index, device)?;
        Ok(match site {
            Projection::OProj => {
                let attended = block.attended(&block.normed(&hidden, Projection::QProj)?, batch, rotary)?;
                self.attended.put(index, &attended)?;
                attended
            }
            Projection::GateProj => {
                let attended = self.attended.get(index, device)?;
                let hidden = accumulate(block.projection(Projection::OProj).forward(&attended)?, &hidden)?;
                self.hidden.put(index, &hidden)?;
                block.normed(&hidden, site)?
            }
            Projection::DownProj => {
                let activated = block.activated(&block.normed(&hidden, Projection::GateProj)?)?;
                self.activated.put(index, &activated)?;
                activated
            }
            _ => block.normed(&hidden, site)?,
        })
    }

    /// Takes the states out of the layer.
    fn leave(&self, block: &Block, At { decoder, index, .. }: At<'_>) -> Result<(), Error> {
        let (hidden, activated) =
            (self.hidden.get(index, &decoder.device)?, self.activated.get(index, &decoder.device)?);
        let hidden = accumulate(block.projection(Projection::DownProj).forward(&activated)?, &hidden)?;
        Ok(self.hidden.put(index, &hidden)?)
    }
}

/// Sums over all tokens at a site: C′ = Σ x′ x′ᵀ and K = Σ (x − x′) x′ᵀ, both [in, in].
struct Moments {
    input: Tensor,
    cross: Tensor,
}

impl Moments {
    /// The factor of C′, and what the site's matrices are to give.
    fn numbers(&self, task: &Task<'_>) -> Result<(Cholesky, Target), Error> {
        let (input, cross): (Vec<f32>, Vec<f32>) =
            (self.input.flatten_all()?.to_vec1()?, self.cross.flatten_all()?.to_vec1()?);
        let numbers = Cholesky::new(&input, task.input_scale(), REGULARISATION).and_then(|input| {
            let target = Target::new(&input, &cross, TOWARDS_DENSE * task.input_scale())?;
            Ok((input, target))
        });
        numbers.map_err(|error| named("the inputs of a layer", error))
    }
}

/// What the matrices of a site are fitted to.
struct Fit<'a> {
    /// Of the dense model.
    block: &'a Block,
    moments: (Cholesky, Target),
    outputs: &'a LayerSums,
    task: &'a Task<'a>,
}

impl Fit<'_> {
    /// The best factors of a matrix's rank.
    fn factors(&self, matrix: &mut Compressed) -> Result<(), Error> {
        let Compressed { projection, triplets: Triplets { name, shape, kept, .. }, .. } = &*matrix;
        let (right, target) = &self.moments;
        let weight: Vec<f32> = self.block.projection(*projection).matrix.to_dense()?.flatten_all()?.to_vec1()?;
        let left = output_factor(self.task, name, self.outputs, *projection)?;
        let weighting = Weighting { left: left.as_ref(), right: Some(right), target: Some(target) };
        let svd = weighted_svd(&weight, *shape, weighting, kept.len()).map_err(|error| named(name, error))?;
        let found = Triplets { sigma: svd.sigma.clone(), kept: (0..kept.len()).collect(), ..matrix.triplets.clone() };
        let factors = Vectors::of(&svd, found.kept.clone()).factors(&found, self.task.rule.split);
        matrix.factors = factors.map(Arc::new);
        Ok(())
    }
}

/// The sums for A of a layer's projections, where the basis asks for them.
fn output_sums(layer: usize, task: &Task<'_>, decoder: &Decoder, state: &State) -> Result<LayerSums, Error> {
    let needs = Needs { gradient: false, input: false, squares: false, ..task.needs() };
    match needs.output {
        true => LayerSums::read(&state.path(SUMS).join(layer.to_string()), needs, task.projections, &decoder.config),
        false => Ok(LayerSums::default()),
    }
}

/// Names of a matrix's factors in the work folder.
fn names(matrix: &Compressed) -> [String; 2] {
    ["input", "output"].map(|side| format!("{}.{side}", matrix.triplets.name))
}

fn write(folder: &Path, matrices: &[Compressed]) -> Result<(), Error> {
    let mut pending = Vec::new();
    for matrix in matrices {
        let Some(factors) = &matrix.factors else { continue };
        let ([out, columns], rank) = (matrix.triplets.shape, factors.rank);
        let sides = [(vec![rank, columns], &factors.input), (vec![out, rank], &factors.output)];
        for (name, (shape, numbers)) in names(matrix).into_iter().zip(sides) {
            pending.push(Pending { name, dtype: Dtype::F32, shape, bytes: Box::new(|| narrow(numbers, Dtype::F32)) });
        }
    }
    write_safetensors(folder, pending, u64::MAX, || Ok(()))?;
    Ok(())
}

fn read(weights: &Weights, matrices: &mut [Compressed]) -> Result<(), Error> {
    for matrix in matrices.iter_mut().filter(|matrix| matrix.is_chosen()) {
        let ([out, columns], rank) = (matrix.triplets.shape, matrix.triplets.kept.len());
        let [input, output] = names(matrix);
        let (input, output) = (weights.numbers(&input, &[rank, columns])?, weights.numbers(&output, &[out, rank])?);
        matrix.factors = Some(Arc::new(FactorNumbers { rank, input, output }));
    }
    Ok(())
}
