//! Stages 2 and 3 together: gradients, then factors, in the order the schedule says. Finished pieces lie in the work
//! folder, and a later attempt reads them instead of doing them again.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use safetensors::Dtype;
use serde_json::json;

use super::{
    Context, Error,
    factorize::{FactorNumbers, Rule, Triplets, factorize, needs_gradients},
    gradients::{self, Chosen, Gradients},
    hidden::HiddenCache,
    memory::decomposition_bytes,
    state::{State, read_json, write_json},
};
use crate::{
    checkpoint::{self, Pending, Weights, narrow, write_safetensors},
    eval::Windows,
    job::{
        Progress, Stage,
        spec::{Projection, Schedule},
    },
    model::{Decoder, Factors, Matrix, Start, factor_names, module_name},
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
    pub(super) rule: Rule,
    pub(super) windows: &'a Windows,
    /// Bytes that the decompositions of a layer may use.
    pub(super) memory: u64,
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
    Ok(all)
}

/// Gradients of everything on the dense model, then the matrices layer by layer.
fn one_shot(
    decoder: &Decoder,
    task: &Task<'_>,
    state: &mut State,
    context: &Context<'_>,
) -> Result<Vec<Compressed>, Error> {
    let pieces: Vec<Piece> = task.layers.iter().map(|&layer| Piece::new(layer, None, task.projections)).collect();
    let left: Chosen = pieces
        .iter()
        .filter(|piece| !piece.is_finished(state))
        .map(|piece| (piece.layer, piece.projections.clone()))
        .collect();
    if needs_gradients(task.rule.score) && !left.is_empty() {
        store_gradients(decoder, task, &left, state, context)?;
    }
    let mut all = Vec::new();
    let total = task.layers.len();
    for (done, piece) in pieces.iter().enumerate() {
        let gradients = match needs_gradients(task.rule.score) && !piece.is_finished(state) {
            true => Some(read_gradients(&state.path(GRADIENTS), piece, decoder)?),
            false => None,
        };
        all.extend(piece.finish(decoder, task, gradients.as_ref(), (done, total), state, context)?);
    }
    context.progress(Progress::new(Stage::Factorize, total as u64, total as u64))?;
    Ok(all)
}

/// Puts the gradients of a one-shot job into the work folder, layer by layer, unless an attempt before this one did.
fn store_gradients(
    decoder: &Decoder,
    task: &Task<'_>,
    chosen: &Chosen,
    state: &mut State,
    context: &Context<'_>,
) -> Result<(), Error> {
    if state.finished.gradients {
        return Ok(());
    }
    let total = task.windows.windows.len() as u64;
    state.timed(Stage::Gradients, |state| {
        let pass = gradients::Pass {
            decoder,
            groups: &gradients::groups(task.windows),
            start: Start::Tokens,
            chosen,
            observe: &mut |done, layer| {
                context.progress(Progress { layer: Some(layer), ..Progress::new(Stage::Gradients, done as u64, total) })
            },
        };
        state.write_folder(GRADIENTS, |folder| {
            gradients::sum(pass, &mut |layer, gradients| write_gradients(&folder.join(layer.to_string()), &gradients))
        })
    })?;
    state.finished.gradients = true;
    state.step(context)
}

/// One folder per layer.
const GRADIENTS: &str = "gradients";

fn write_gradients(folder: &Path, gradients: &Gradients) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(checkpoint::Error::io(folder))?;
    let pending = gradients.iter().map(|(&projection, gradient)| Pending {
        name: projection.path().to_owned(),
        dtype: Dtype::F32,
        shape: gradient.dims().to_vec(),
        bytes: Box::new(move || narrow(&to_numbers(gradient)?, Dtype::F32)),
    });
    write_safetensors(folder, pending.collect(), u64::MAX, || Ok(()))?;
    Ok(())
}

fn read_gradients(folder: &Path, piece: &Piece, decoder: &Decoder) -> Result<Gradients, Error> {
    let weights = Weights::open(&folder.join(piece.layer.to_string()))?;
    let read = |&projection: &Projection| {
        let shape = decoder.config.projection_shape(projection);
        Ok((projection, weights.tensor(projection.path(), &shape, &decoder.device)?))
    };
    piece.projections.iter().map(read).collect()
}

/// Deepest layer first, its MLP before its attention, each on the gradients of the model as it stands (the reference
/// code's schedule).
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
        let mut gradients = None;
        if needs_gradients(task.rule.score) && !piece.is_finished(state) {
            let cache = match &cache {
                Some(cache) => cache,
                None => &*cache.insert(fill_cache(decoder, task, state, context)?),
            };
            gradients = Some(piece.gradients(decoder, task, cache, progress, state, context)?);
        }
        let finished = piece.finish(decoder, task, gradients.as_ref(), progress, state, context)?;
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

/// The matrices that are finished together: a layer, or a block of one.
struct Piece {
    layer: usize,
    block: Option<&'static str>,
    projections: Vec<Projection>,
}

impl Piece {
    fn new(layer: usize, block: Option<&'static str>, projections: &[Projection]) -> Self {
        Self { layer, block, projections: projections.to_vec() }
    }

    fn name(&self) -> String {
        match self.block {
            Some(block) => format!("layer-{:04}-{block}", self.layer),
            None => format!("layer-{:04}", self.layer),
        }
    }

    fn is_finished(&self, state: &State) -> bool {
        state.finished.pieces.contains(&self.name())
    }

    /// The gradients of the piece's matrices on the model as it stands.
    fn gradients(
        &self,
        decoder: &Decoder,
        task: &Task<'_>,
        cache: &HiddenCache,
        (done, pieces): (usize, usize),
        state: &mut State,
        context: &Context<'_>,
    ) -> Result<Gradients, Error> {
        let windows = task.windows.windows.len();
        let observe = &mut |window: usize, layer: usize| {
            let position = (done * windows + window) as u64;
            context.progress(Progress {
                layer: Some(layer),
                part: self.block.map(str::to_owned),
                ..Progress::new(Stage::Gradients, position, (pieces * windows) as u64)
            })
        };
        state.timed(Stage::Gradients, |_| {
            let chosen = Chosen::from([(self.layer, self.projections.clone())]);
            let groups = gradients::groups(task.windows);
            let start = cache.start(self.layer)?;
            let pass = gradients::Pass { decoder, groups: &groups, start, chosen: &chosen, observe };
            let mut collected = Gradients::new();
            gradients::sum(pass, &mut |_, gradients| {
                collected = gradients;
                Ok(())
            })?;
            Ok(collected)
        })
    }

    /// The piece's matrices: read again if an earlier attempt finished them, else decomposed and kept on disk.
    fn finish(
        &self,
        decoder: &Decoder,
        task: &Task<'_>,
        gradients: Option<&Gradients>,
        (done, total): (usize, usize),
        state: &mut State,
        context: &Context<'_>,
    ) -> Result<Vec<Compressed>, Error> {
        if self.is_finished(state) {
            return self.read(decoder, state);
        }
        let progress = Progress {
            layer: Some(self.layer),
            part: self.block.map(str::to_owned),
            ..Progress::new(Stage::Factorize, done as u64, total as u64)
        };
        context.progress(progress)?;
        let finished = state.timed(Stage::Factorize, |_| self.factorize(decoder, task, gradients, context))?;
        state.write_folder(&self.name(), |folder| Self::write(folder, &finished))?;
        state.finished.pieces.push(self.name());
        state.step(context)?;
        Ok(finished)
    }

    fn factorize(
        &self,
        decoder: &Decoder,
        task: &Task<'_>,
        gradients: Option<&Gradients>,
        context: &Context<'_>,
    ) -> Result<Vec<Compressed>, Error> {
        let block = decoder.block(self.layer)?;
        let work = |&projection: &Projection| {
            if context.observer.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let matrix = &block.projection(projection).matrix;
            let gradient = gradients.and_then(|gradients| gradients.get(&projection));
            let gradient = gradient.map(to_numbers).transpose()?;
            let name = module_name(self.layer, projection.path());
            let weight = to_numbers(&matrix.to_dense()?)?;
            let (triplets, factors) = factorize(&name, matrix.shape()?, &weight, gradient.as_deref(), task.rule)?;
            Ok(Compressed { layer: self.layer, projection, triplets, factors: factors.map(Arc::new) })
        };
        let largest = self.projections.iter().map(|&projection| decoder.config.projection_shape(projection));
        let each = largest.map(decomposition_bytes).max().unwrap_or(1);
        let at_once = (task.memory / each.max(1)).max(1) as usize;
        let mut all = Vec::with_capacity(self.projections.len());
        for some in self.projections.chunks(at_once) {
            let finished: Result<Vec<_>, Error> = some.par_iter().with_max_len(1).map(work).collect();
            all.extend(finished?);
        }
        Ok(all)
    }

    fn write(folder: &Path, finished: &[Compressed]) -> Result<(), Error> {
        let mut pending = Vec::new();
        for Compressed { triplets, factors, .. } in finished {
            let Some(factors) = factors else { continue };
            let [out, input] = triplets.shape;
            let (input_name, output_name) = factor_names(&triplets.name);
            let tensor = |name, shape: [usize; 2], numbers: fn(&FactorNumbers) -> &[f32]| Pending {
                name,
                dtype: Dtype::F32,
                shape: shape.to_vec(),
                bytes: Box::new(move || narrow(numbers(factors), Dtype::F32)),
            };
            pending.push(tensor(input_name, [factors.rank, input], |factors| &factors.input));
            pending.push(tensor(output_name, [out, factors.rank], |factors| &factors.output));
        }
        write_safetensors(folder, pending, u64::MAX, || Ok(()))?;
        let triplets: Vec<&Triplets> = finished.iter().map(|matrix| &matrix.triplets).collect();
        write_json(&folder.join(TRIPLETS), &json!(triplets))
    }

    fn read(&self, decoder: &Decoder, state: &State) -> Result<Vec<Compressed>, Error> {
        let folder = state.path(&self.name());
        let weights = Weights::open(&folder)?;
        let triplets: Vec<Triplets> = read_json(&folder.join(TRIPLETS))
            .ok_or_else(|| checkpoint::Error::invalid(&folder, "holds no readable triplets"))?;
        let matrix = |(&projection, triplets): (&Projection, Triplets)| {
            let [out, input] = decoder.config.projection_shape(projection);
            let rank = triplets.kept.len();
            let (input_name, output_name) = factor_names(&triplets.name);
            let factors = match rank {
                0 => None,
                _ => Some(Arc::new(FactorNumbers {
                    rank,
                    input: weights.numbers(&input_name, &[rank, input])?,
                    output: weights.numbers(&output_name, &[out, rank])?,
                })),
            };
            Ok(Compressed { layer: self.layer, projection, triplets, factors })
        };
        self.projections.iter().zip(triplets).map(matrix).collect()
    }
}

const TRIPLETS: &str = "triplets.json";

/// Puts a matrix's factors in its place; rounded to `dtype` when they are to be what the export will hold.
pub(super) fn install(decoder: &mut Decoder, matrix: &Compressed, dtype: Option<Dtype>) -> Result<(), Error> {
    let Some(factors) = &matrix.factors else { return Ok(()) };
    let [out, input] = matrix.triplets.shape;
    let device = decoder.device.clone();
    let tensor = |numbers: &[f32], shape: (usize, usize), device: &Device| -> Result<Tensor, Error> {
        let numbers = match dtype {
            Some(dtype) => checkpoint::round_to(numbers, dtype)?,
            None => numbers.to_vec(),
        };
        Ok(Tensor::from_vec(numbers, shape, device)?)
    };
    let factors = Factors {
        input: tensor(&factors.input, (factors.rank, input), &device)?,
        output: tensor(&factors.output, (out, factors.rank), &device)?,
    };
    Ok(decoder.replace(matrix.layer, matrix.projection, Matrix::Factored(factors))?)
}

fn to_numbers(tensor: &Tensor) -> Result<Vec<f32>, checkpoint::Error> {
    Ok(tensor.flatten_all()?.to_vec1()?)
}

/// Factors by module name, for the export.
pub(super) fn by_module(matrices: &[Compressed]) -> BTreeMap<String, Arc<FactorNumbers>> {
    matrices
        .iter()
        .filter_map(|matrix| Some((matrix.triplets.name.clone(), Arc::clone(matrix.factors.as_ref()?))))
        .collect()
}
