use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    GenerationReport, InferenceReport, JobSpec, RollingReport, Stage,
    spec::{ExportFormat, ExportType, RecoveryMethod},
};

/// What a job did and what came of it; `report.json` in the published folder.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// Which model it was.
    pub model: ModelReport,
    /// The job's spec with every default filled in.
    #[schema(value_type = Object)]
    pub spec: JobSpec,
    /// Parameters of the whole model, a tied head counted once.
    pub parameters: ParameterCounts,
    /// Bytes of all safetensors files.
    pub bytes: ByteCounts,
    /// The checkpoints that were written.
    #[serde(default)]
    pub checkpoints: Vec<CheckpointReport>,
    /// Share of parameters that went.
    #[serde(default)]
    pub removed: RemovedShares,
    /// Rise of the loss per token, in nats, that the decompositions predict to second order; only in the two-sided basis,
    /// which measures it. `evaluation.perplexity.*.loss_rise` is what came of it.
    #[serde(default)]
    pub predicted_loss_rise: Option<f64>,
    /// Layer choice.
    pub layers: LayerReport,
    /// One entry per matrix of the redundant layers, in model order.
    pub matrices: Vec<MatrixReport>,
    /// What training did; null when the job asked for none.
    #[serde(default)]
    pub recovery: Option<RecoveryReport>,
    /// Scores; null when the job asked for none.
    pub evaluation: Option<EvaluationReport>,
    /// Wall time of each stage over all attempts, in the order they ran.
    pub stages: Vec<StageSeconds>,
    /// Highest resident set size of the worker process, in bytes.
    pub peak_rss_bytes: u64,
    /// Where the layers were: `resident` in memory, or `streamed` from their files.
    #[serde(default)]
    pub residency: String,
    /// The seed that chose the calibration windows.
    pub seed: u64,
    /// The device it ran on: `cpu`, `cuda:0`, `metal`.
    pub device: String,
    /// The version of graspd.
    pub version: String,
    /// Anything a reader should know: a clamped window, a matrix left dense.
    pub notes: Vec<String>,
}

/// Which model a job compressed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ModelReport {
    /// As the job named it.
    pub source: String,
    /// The commit a hub revision resolved to; null for a local folder.
    pub revision: Option<String>,
    /// The architecture in its config.json, such as `LlamaForCausalLM`.
    pub architecture: String,
}

/// A checkpoint in the published folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointReport {
    /// How its compressed matrices are written.
    pub format: ExportFormat,
    /// Where it is below the published folder: its format's name where there are two, else empty.
    pub folder: String,
    /// Type of its numbers; null when it is that of the source.
    pub dtype: Option<ExportType>,
    /// Parameters, a tied head counted once.
    pub parameters: u64,
    /// Bytes of its safetensors files.
    pub bytes: u64,
}

/// Parameters before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ParameterCounts {
    /// In the source.
    pub before: u64,
    /// In the published checkpoint; in the factored one where there are two.
    pub after: u64,
}

/// Share of parameters that went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RemovedShares {
    /// Of all parameters of the model, a tied head counted once: what `target_compression` means.
    pub all: f64,
    /// Of the linear parameters of the decoder layers, as the tables of papers count them.
    pub linear: f64,
}

/// Bytes before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ByteCounts {
    /// In the source's safetensors files.
    pub before: u64,
    /// In the published safetensors files; in the factored ones where there are two checkpoints.
    pub after: u64,
}

/// How the redundant layers were chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LayerReport {
    /// Block influence of every layer, 1 − mean cosine similarity of its input and output (ShortGPT).
    pub block_influence: Vec<f64>,
    /// Mean angular distance (in units of π) of every run of n consecutive layers, by its first layer; only with the `angular` metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub angular_distance: Option<Vec<f64>>,
    /// The layers that were compressed or removed; those with factors where nothing was compressed. Ascending.
    pub redundant: Vec<usize>,
}

/// What became of one matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MatrixReport {
    /// Module name in the checkpoint, such as `model.layers.2.mlp.up_proj`.
    pub name: String,
    /// `[out, in]`.
    pub shape: [usize; 2],
    /// Singular triplets kept; null for a matrix that stays dense because its factors would not be smaller.
    pub rank: Option<usize>,
    /// Indices of the kept triplets in descending order of σ (0 is the largest), ascending.
    pub kept: Vec<usize>,
    /// Numbers in the matrix.
    pub parameters_before: u64,
    /// Numbers in what replaces it.
    pub parameters_after: u64,
    /// This matrix's part of the report's `predicted_loss_rise`.
    #[serde(default)]
    pub predicted_loss_rise: Option<f64>,
}

/// Scores before and after.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluationReport {
    /// By data set.
    #[schema(value_type = Object)]
    pub perplexity: IndexMap<String, PerplexityReport>,
    /// Multiple choice, by task.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schema(value_type = Object)]
    pub tasks: IndexMap<String, TaskReport>,
    /// Rolling perplexities, by task.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schema(value_type = Object)]
    pub rolling: IndexMap<String, RollingReport>,
    /// Scores of what the model wrote, by task.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schema(value_type = Object)]
    pub generation: IndexMap<String, GenerationReport>,
    /// Means over the multiple-choice tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average: Option<AverageReport>,
    /// Speed and memory of generation; absent where they were not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inference: Option<InferenceReport>,
}

/// Accuracy on one task, counted as lm-evaluation-harness counts it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskReport {
    /// Of the source; null when `compare_dense` is false.
    pub before: Option<TaskScores>,
    /// Of the compressed model, on the weights as exported.
    pub after: TaskScores,
    /// Of the model after recovery, on the weights as exported; null without recovery.
    #[serde(default)]
    pub recovered: Option<TaskScores>,
    /// Documents asked.
    pub documents: usize,
    /// Solved examples before each.
    pub num_fewshot: usize,
    /// How they were asked, in words.
    pub protocol: String,
}

/// Shares of right answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskScores {
    /// By log-likelihood.
    pub acc: f64,
    /// Its standard error; null for a single document.
    pub acc_stderr: Option<f64>,
    /// By log-likelihood per character of the choice; absent where the task has no such score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc_norm: Option<f64>,
    /// Its standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc_norm_stderr: Option<f64>,
}

/// Means over the tasks, before and after.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AverageReport {
    /// Of the source; null when `compare_dense` is false.
    pub before: Option<AverageScores>,
    /// Of the compressed model.
    pub after: AverageScores,
    /// Of the model after recovery; null without recovery.
    #[serde(default)]
    pub recovered: Option<AverageScores>,
}

/// Means over the tasks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AverageScores {
    /// Of all tasks.
    pub acc: f64,
    /// Of those that have it; absent where none has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc_norm: Option<f64>,
}

impl AverageScores {
    /// The means; none of nothing.
    pub fn of(scores: &[TaskScores]) -> Option<Self> {
        let mean = |values: &[f64]| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
        let acc: Vec<f64> = scores.iter().map(|scores| scores.acc).collect();
        let acc_norm: Vec<f64> = scores.iter().filter_map(|scores| scores.acc_norm).collect();
        Some(Self { acc: mean(&acc)?, acc_norm: mean(&acc_norm) })
    }
}

/// Perplexity on one data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PerplexityReport {
    /// Of the source; null when `compare_dense` is false, or where nothing was compressed.
    pub before: Option<f64>,
    /// Of the compressed model, on the weights as exported; of the source where nothing was compressed.
    pub after: f64,
    /// Of the model after recovery, on the weights as exported; null without recovery.
    #[serde(default)]
    pub recovered: Option<f64>,
    /// ln(after / before): the rise of the loss per token, in nats; null without a score before.
    #[serde(default)]
    pub loss_rise: Option<f64>,
    /// Tokens scored.
    pub tokens: u64,
    /// Tokens in a window.
    pub window: usize,
    /// How it was computed, in words.
    pub protocol: String,
}

/// How recovery went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RecoveryReport {
    /// What was trained.
    pub method: RecoveryMethod,
    /// The layers that were trained, ascending, as the published checkpoint counts them.
    pub layers: Vec<usize>,
    /// Numbers that were trained: of the adapters with `lora`.
    pub trained_parameters: u64,
    /// Records or windows that were trained on.
    pub examples: usize,
    /// Records or windows kept back to validate on.
    pub validation_examples: usize,
    /// Records of which nothing was left to learn after they were cut to the longest length.
    pub skipped: usize,
    /// Optimiser steps.
    pub steps: usize,
    /// The step whose parameters were published: that of the lowest validation loss, the last one without validation.
    pub best_step: usize,
    /// Tokens that went through the model in training, padding not counted.
    pub tokens: u64,
    /// Of these, in a second of training.
    pub tokens_per_second: f64,
    /// Every step.
    pub curve: Vec<TrainingPoint>,
    /// Every validation.
    pub validation: Vec<ValidationPoint>,
    /// Losses of what is kept back, before and after; null where nothing is.
    #[serde(default)]
    pub held_out: Option<HeldOutReport>,
}

/// Mean loss per token, in nats, of the records or windows that are kept back to validate on: of the answers only, unless
/// `train_on_inputs` is set. The perplexity is e to that power.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HeldOutReport {
    /// Of the source; null when `compare_dense` is false, or where nothing was compressed.
    pub before: Option<f64>,
    /// Of the model that training began with, on its weights as they would have been exported.
    pub after: f64,
    /// Of the model after recovery, on the weights as exported.
    pub recovered: f64,
    /// Tokens whose loss counts.
    pub tokens: u64,
}

/// A step of training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TrainingPoint {
    /// From 1.
    pub step: usize,
    /// Mean loss of the batch's tokens before the step.
    pub loss: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
}

/// A validation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ValidationPoint {
    /// Steps taken before it.
    pub step: usize,
    /// Mean loss of the tokens kept back.
    pub loss: f64,
}

/// Wall time of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StageSeconds {
    /// The stage.
    pub stage: Stage,
    /// Seconds, over all attempts.
    pub seconds: f64,
}
