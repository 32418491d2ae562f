//! Stages 2 and 3 together: what the passes add up, then decompositions, the choice and the factors, in the order the
//! schedule says. Finished pieces lie in the work folder, and a later attempt reads them instead of doing them again.

use std::{collections::BTreeMap, sync::Arc};

use candle_core::{Device, Tensor};
use safetensors::Dtype;

use super::{
    Context, Error,
    factorize::{FactorNumbers, Rule, Triplets},
    gradients::{self, Chosen, Wanted},
    hidden::HiddenCache,
    influence::Cosines,
    piece::Piece,
    refine::refine,
    select::select,
    state::State,
    statistics::{Frames, LayerSums, Needs},
};
use crate::{
    checkpoint,
    eval::Windows,
    job::{
        Progress, Stage,
        spec::{Projection, Refine, Schedule},
    },
    linalg::thin_svd,
    model::{Decoder, Factors, Matrix, Start, module_name},
};

/// A matrix with its triplets and, unless it stays dense, its factors.
pub(super) struct Compressed {
    pub(super) layer: usize,
    pub(super) projection: Projection,
    pub(super) triplets: Triplets,
    pub(super) factors: Option<Arc<FactorNumbers>>,
}

/// What is to be compressed and how.
pub(super) struct Task<'a> {
    pub(super) layers: &'a [usize],
    pub(super) projections: &'a [Projection],
    pub(super) schedule: Schedule,
    pub(super) refine: Refine,
    pub(super) rule: Rule,
    pub(super) windows: &'a Windows,
    /// Bytes that the decompositions of a layer may use.
    pub(super) memory: u64,
}

impl Task<'_> {
    /// What the passes must add up.
    pub(super) const fn needs(&self) -> Needs {
        Needs::of(self.rule.basis, self.rule.score)
    }

    /// Makes C = E[x xᵀ] of the sum over all tokens.
    pub(super) fn input_scale(&self) -> f64 {
        1.0 / (self.windows.windows.len() * self.windows.length) as f64
    }

    /// Makes A = E[g gᵀ] of the sum, with g the gradient of the summed loss where the passes take that of a window's mean.
    pub(super) fn output_scale(&self) -> f64 {
        let predictions = (self.windows.length - 1) as f64;
        predictions * predictions * self.input_scale()
    }
}

/// Compresses the task's matrices; in the iterative schedule the decoder changes on the way.
pub(super) fn compress(
    decoder: &mut Decoder,
    task: &Task<'_>,
    state: &mut State,
    context: &Context<'_>,
) -> Result<Vec<Compressed>, Error> {
    let mut all = match task.schedule {
        Schedule::OneShot => one_shot(decoder, task, state, context)?,
        Schedule::Iterative => iterative(decoder, task, state, context)?,
    };
    all.sort_by_key(|matrix| (matrix.layer, matrix.projection));
    if task.refine == Refine::Sequential {
        refine(decoder, &mut all, task, state, context)?;
    }
    Ok(all)
}

/// The sums of everything on the dense model, then the matrices layer by layer, then the choice among all of them.
fn one_shot(
    decoder: &Decoder,
    task: &Task<'_>,
    state: &mut State,
    context: &Context<'_>,
) -> Result<Vec<Compressed>, Error> {
    let pieces: Vec<Piece> = task.layers.iter().map(|&layer| Piece::new(layer, None, task.projections)).collect();
    let needs = task.needs();
    // What refines the factors reads the sums once more.
    let is_finished = |piece: &Piece| piece.is_finished(state) && task.refine == Refine::None;
    if needs.anything() && !pieces.iter().all(is_finished) {
        store_sums(decoder, task, &pieces, state, context)?;
    }
    let total = task.layers.len();
    for (done, piece) in pieces.iter().enumerate() {
        let sums = match needs.anything() && !piece.is_finished(state) {
            true => {
                let folder = state.path(SUMS).join(piece.layer.to_string());
                Some(LayerSums::read(&folder, needs, &piece.projections, &decoder.config)?)
            }
            false => None,
        };
        piece.prepare(decoder, task, sums, (done, total), state, context)?;
    }
    let all = state.timed(Stage::Factorize, |state| choose(&pieces, task, state))?;
    context.progress(Progress::new(Stage::Factorize, total as u64, total as u64))?;
    Ok(all)
}

/// Chooses among the triplets of all pieces at once.
fn choose(pieces: &[Piece], task: &Task<'_>, state: &State) -> Result<Vec<Compressed>, Error> {
    let mut triplets = pieces.iter().map(|piece| piece.triplets(state)).collect::<Result<Vec<_>, _>>()?;
    select(task.rule.keep, &mut triplets.iter_mut().flatten().collect::<Vec<_>>());
    let mut all = Vec::new();
    for (piece, chosen) in pieces.iter().zip(triplets) {
        all.extend(piece.read(task, chosen, state)?);
    }
    Ok(all)
}

/// One folder per layer.
pub(super) const SUMS: &str = "sums";

/// Puts what a one-shot job adds up into the work folder, layer by layer, unless an attempt before this one did.
fn store_sums(
    decoder: &Decoder,
    task: &Task<'_>,
    pieces: &[Piece],
    state: &mut State,
    context: &Context<'_>,
) -> Result<(), Error> {
    if state.finished.gradients {
        return Ok(());
    }
    let total = task.windows.windows.len() as u64;
    state.timed(Stage::Gradients, |state| {
        let frames = task.needs().squares.then(|| frames(decoder, pieces, context)).transpose()?;
        let mut cosines = Cosines::new(decoder.num_layers());
        let chosen: Chosen = pieces.iter().map(|piece| (piece.layer, piece.projections.clone())).collect();
        let pass = gradients::Pass {
            decoder,
            groups: &gradients::groups(task.windows),
            start: Start::Tokens,
            wanted: Wanted { chosen: &chosen, needs: task.needs(), frames: frames.as_ref() },
            see: &mut |layer, before, after| Ok(cosines.add(layer, before, after)?),
            observe: &mut |done, layer| {
                context.progress(Progress { layer: Some(layer), ..Progress::new(Stage::Gradients, done as u64, total) })
            },
        };
        state.write_folder(SUMS, |folder| {
            gradients::sum(pass, &mut |layer, sums| sums.write(&folder.join(layer.to_string())))
        })?;
        // Where nothing needed it before, the influence is seen on the way.
        match &mut state.finished.influence {
            Some(influence) if influence.block_influence.is_empty() => {
                influence.block_influence = cosines.influence(task.windows)?;
                Ok(())
            }
            _ => Ok(()),
        }
    })?;
    state.finished.gradients = true;
    state.step(context)
}

/// The plain triplets of the pieces' matrices, for scores that look at each window on its own.
fn frames(decoder: &Decoder, pieces: &[Piece], context: &Context<'_>) -> Result<Frames, Error> {
    let mut frames = Frames::new();
    for piece in pieces {
        let block = decoder.block(piece.layer)?;
        for &projection in &piece.projections {
            context.progress(Progress { layer: Some(piece.layer), ..Progress::new(Stage::Gradients, 0, 1) })?;
            let matrix = &block.projection(projection).matrix;
            let [out, input] = matrix.shape()?;
            let svd = thin_svd(&matrix.to_dense()?.flatten_all()?.to_vec1::<f32>()?, out, input)
                .map_err(|error| super::factorize::named(&module_name(piece.layer, projection.path()), error))?;
            // [r, n] row by row is what the products need the transpose of.
            let columns = |vectors: &[f64], n: usize| -> Result<Tensor, Error> {
                let numbers: Vec<f32> = vectors.iter().map(|x| *x as f32).collect();
                Ok(Tensor::from_vec(numbers, (svd.len(), n), &decoder.device)?.t()?)
            };
            frames.insert((piece.layer, projection), (columns(&svd.left, out)?, columns(&svd.right, input)?));
        }
    }
    Ok(frames)
}

/// Deepest layer first, its MLP before its attention, each on the sums of the model as it stands (the reference code's
/// schedule).
fn iterative(
    decoder: &mut Decoder,
    task: &Task<'_>,
    state: &mut State,
    context: &Context<'_>,
) -> Result<Vec<Compressed>, Error> {
    let pieces = iterative_pieces(task);
    let mut cache = None;
    let mut all = Vec::new();
    for (done, piece) in pieces.iter().enumerate() {
        let progress = (done, pieces.len());
        let mut sums = None;
        if task.needs().anything() && !piece.is_finished(state) {
            let cache = match &cache {
                Some(cache) => cache,
                None => &*cache.insert(fill_cache(decoder, task, state, context)?),
            };
            sums = Some(sums_of(piece, decoder, task, cache, progress, state, context)?);
        }
        piece.prepare(decoder, task, sums, progress, state, context)?;
        let finished = choose(std::slice::from_ref(piece), task, state)?;
        for matrix in &finished {
            install(decoder, matrix, None)?;
        }
        all.extend(finished);
    }
    context.progress(Progress::new(Stage::Factorize, pieces.len() as u64, pieces.len() as u64))?;
    Ok(all)
}

fn iterative_pieces(task: &Task<'_>) -> Vec<Piece> {
    let of = |mlp: bool| task.projections.iter().copied().filter(|p| p.is_mlp() == mlp).collect::<Vec<_>>();
    let blocks = [("mlp", of(true)), ("self_attn", of(false))];
    let pieces =
        task.layers.iter().rev().flat_map(|&layer| {
            blocks.iter().map(move |(block, projections)| Piece::new(layer, Some(block), projections))
        });
    pieces.filter(|piece| !piece.projections.is_empty()).collect()
}

fn fill_cache(
    decoder: &Decoder,
    task: &Task<'_>,
    state: &mut State,
    context: &Context<'_>,
) -> Result<HiddenCache, Error> {
    state.timed(Stage::Gradients, |_| {
        HiddenCache::fill(decoder, &gradients::groups(task.windows), task.layers, &mut |layer| {
            context.progress(Progress {
                layer: Some(layer),
                part: Some("hidden states".to_owned()),
                ..Progress::new(Stage::Gradients, 0, 1)
            })
        })
    })
}

/// What the model as it stands says of a piece's matrices.
fn sums_of(
    piece: &Piece,
    decoder: &Decoder,
    task: &Task<'_>,
    cache: &HiddenCache,
    (done, pieces): (usize, usize),
    state: &mut State,
    context: &Context<'_>,
) -> Result<LayerSums, Error> {
    let windows = task.windows.windows.len();
    let observe = &mut |window: usize, layer: usize| {
        let position = (done * windows + window) as u64;
        context.progress(Progress {
            layer: Some(layer),
            part: piece.block.map(str::to_owned),
            ..Progress::new(Stage::Gradients, position, (pieces * windows) as u64)
        })
    };
    state.timed(Stage::Gradients, |_| {
        let frames = task.needs().squares.then(|| frames(decoder, std::slice::from_ref(piece), context)).transpose()?;
        let chosen = Chosen::from([(piece.layer, piece.projections.clone())]);
        let groups = gradients::groups(task.windows);
        let wanted = Wanted { chosen: &chosen, needs: task.needs(), frames: frames.as_ref() };
        let (start, see) = (cache.start(piece.layer)?, &mut |_: usize, _: &Tensor, _: &Tensor| Ok(()));
        let pass = gradients::Pass { decoder, groups: &groups, start, wanted, see, observe };
        let mut collected = LayerSums::default();
        gradients::sum(pass, &mut |_, sums| {
            collected = sums;
            Ok(())
        })?;
        Ok(collected)
    })
}

/// Puts a matrix's factors in its place; rounded to `dtype` when they are to be what the export will hold.
pub(super) fn install(decoder: &mut Decoder, matrix: &Compressed, dtype: Option<Dtype>) -> Result<(), Error> {
    let Some(factors) = matrix.tensors(dtype, &decoder.device)? else { return Ok(()) };
    Ok(decoder.replace(matrix.layer, matrix.projection, Matrix::Factored(factors))?)
}

impl Compressed {
    /// Whether triplets of it are kept; else it stays dense.
    pub(super) const fn is_chosen(&self) -> bool {
        !self.triplets.kept.is_empty()
    }

    /// Its factors, rounded to `dtype` if there is one; `None` when it stays dense.
    pub(super) fn tensors(&self, dtype: Option<Dtype>, device: &Device) -> Result<Option<Factors>, Error> {
        let Some(factors) = &self.factors else { return Ok(None) };
        let [out, input] = self.triplets.shape;
        let tensor = |numbers: &[f32], shape: (usize, usize)| -> Result<Tensor, Error> {
            let numbers = match dtype {
                Some(dtype) => checkpoint::round_to(numbers, dtype)?,
                None => numbers.to_vec(),
            };
            Ok(Tensor::from_vec(numbers, shape, device)?)
        };
        Ok(Some(Factors {
            input: tensor(&factors.input, (factors.rank, input))?,
            output: tensor(&factors.output, (out, factors.rank))?,
        }))
    }
}

/// Factors by module name, for the export.
pub(super) fn by_module(matrices: &[Compressed]) -> BTreeMap<String, Arc<FactorNumbers>> {
    matrices
        .iter()
        .filter_map(|matrix| Some((matrix.triplets.name.clone(), Arc::clone(matrix.factors.as_ref()?))))
        .collect()
}
