//! What a finished job computed, in floating-point operations; a multiplication and an addition are two. Counted from
//! shapes: what a kernel computes twice or in vain is not in it.

use super::statistics::Needs;
use crate::{
    job::{
        Report, Stage,
        spec::{Grasp, Method, Projection, Schedule},
    },
    model::{Batch, Config},
};

/// A stage's work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StageCost {
    /// The stage.
    pub stage: Stage,
    /// Floating-point operations.
    pub flop: f64,
    /// Tokens that went through the model, each counted once however often it did.
    pub tokens: u64,
}

/// The work of the stages that are matrix products for the most part: influence, gradients, evaluation.
pub fn cost(config: &Config, report: &Report) -> Vec<StageCost> {
    let calibration = &report.spec.calibration;
    let windows = Batch { windows: calibration.samples, length: calibration.sequence_length };
    let tokens = windows.tokens() as u64;
    let mut costs = vec![StageCost { stage: Stage::Influence, flop: layers(config, windows), tokens }];
    if report.spec.grasp.method == Method::Grasp && needs(&report.spec.grasp).anything() {
        costs.push(StageCost {
            stage: Stage::Gradients,
            flop: gradients(config, &report.spec.grasp, &report.layers.redundant, windows),
            tokens,
        });
    }
    if let Some(evaluation) = &report.evaluation {
        let (mut flop, mut tokens) = (0.0, 0);
        for score in evaluation.perplexity.values() {
            let count = score.tokens / (score.window as u64 - 1);
            let batch = Batch { windows: count as usize, length: score.window };
            let saved: u64 =
                report.matrices.iter().map(|matrix| matrix.parameters_before - matrix.parameters_after).sum();
            let dense = layers(config, batch) + head(config, batch);
            let compressed = dense - 2.0 * saved as f64 * batch.tokens() as f64;
            flop += compressed + if score.before.is_some() { dense } else { 0.0 };
            tokens += batch.tokens() as u64 * (1 + u64::from(score.before.is_some()));
        }
        costs.push(StageCost { stage: Stage::Evaluate, flop, tokens });
    }
    costs
}

const fn needs(grasp: &Grasp) -> Needs {
    Needs::of(grasp.basis, grasp.score)
}

/// What is added up of a layer's projections; of the symmetric sums one triangle.
fn sums(config: &Config, grasp: &Grasp, projections: &[Projection], batch: Batch) -> f64 {
    let all = needs(grasp);
    let symmetric = Needs { gradient: false, squares: false, ..all };
    let numbers = 2 * all.numbers(config, projections) - symmetric.numbers(config, projections);
    numbers as f64 * batch.tokens() as f64
}

/// All layers forward.
pub(super) fn layers(config: &Config, batch: Batch) -> f64 {
    config.num_layers as f64 * forward(config, batch)
}

/// One layer forward.
fn forward(config: &Config, batch: Batch) -> f64 {
    linear(config, &Projection::ALL, batch) + attention(config, batch)
}

/// The products of a layer's projections with their inputs.
fn linear(config: &Config, projections: &[Projection], batch: Batch) -> f64 {
    let elements = |&projection: &Projection| {
        let [out, input] = config.projection_shape(projection);
        (out * input) as f64
    };
    2.0 * projections.iter().map(elements).sum::<f64>() * batch.tokens() as f64
}

/// q kᵀ and p v over the pairs that the causal mask leaves.
fn attention(config: &Config, batch: Batch) -> f64 {
    let length = batch.length as f64;
    let pairs = batch.windows as f64 * length * (length + 1.0) / 2.0;
    2.0 * 2.0 * pairs * (config.num_heads * config.head_dim) as f64
}

/// The map to the vocabulary.
pub(super) fn head(config: &Config, batch: Batch) -> f64 {
    2.0 * (config.vocab_size * config.hidden_size) as f64 * batch.tokens() as f64
}

/// A refinement: both models forward, and of the inputs of each site one triangle of C′ and the whole of K.
pub(super) fn refinement(config: &Config, grasp: &Grasp, windows: Batch) -> f64 {
    let inputs = Needs { input: true, ..Needs::NONE }.numbers(config, &grasp.projections);
    2.0 * layers(config, windows) + (config.num_layers * windows.tokens()) as f64 * 3.0 * inputs as f64
}

/// Forward with the head, the gradient of the logits back to the hidden states, and each layer back to the lowest
/// chosen one: the product with the weights, attention's five products for two, and the sums of the chosen matrices.
pub(super) fn gradients(config: &Config, grasp: &Grasp, redundant: &[usize], windows: Batch) -> f64 {
    let layers = config.num_layers;
    let back = |from: usize| {
        (layers - from) as f64 * (linear(config, &Projection::ALL, windows) + 2.5 * attention(config, windows))
    };
    let Some(&lowest) = redundant.iter().min() else { return 0.0 };
    let one = forward(config, windows);
    match grasp.schedule {
        Schedule::OneShot => {
            let own = redundant.len() as f64 * sums(config, grasp, &grasp.projections, windows);
            layers as f64 * one + 2.0 * head(config, windows) + back(lowest) + own
        }
        Schedule::Iterative => {
            let blocks = [true, false].map(|mlp| grasp.projections.iter().copied().filter(move |p| p.is_mlp() == mlp));
            let passes = blocks.map(Iterator::collect::<Vec<_>>).into_iter().filter(|block| !block.is_empty());
            let passes: Vec<_> = passes.collect();
            let pass = |&layer: &usize, block: &[Projection]| {
                (layers - layer) as f64 * one
                    + 2.0 * head(config, windows)
                    + back(layer)
                    + sums(config, grasp, block, windows)
            };
            let all = redundant.iter().flat_map(|layer| passes.iter().map(move |block| pass(layer, block)));
            // The states in front of the layers are computed once.
            let highest = redundant.iter().max().copied().unwrap_or(0);
            all.sum::<f64>() + highest as f64 * one
        }
    }
}
