//! What a job is asked to do. A [`JobSpec`] exists only after [`JobSpec::parse`], so that it is always valid.

mod body;
mod check;
mod check_evaluation;
mod check_kind;
mod export;
mod preset;

use std::collections::BTreeMap;

pub use body::{AssessmentBody, CalibrationBody, CalibrationPartBody, EvaluationBody, GraspBody, JobBody, LayersBody};
pub use export::{Export, ExportBody, ExportFormat, ExportType, ShardSizeBody};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{DatasetName, GenerationTask, ModelSource, RollingTask, TaskName};

/// A field of a spec is wrong: which, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct SpecError {
    /// Dotted path of the field, such as `grasp.retain_ratio`; `body` for the whole.
    pub field: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// A complete, valid job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobSpec {
    /// What is done with the model.
    pub kind: Kind,
    /// The model.
    pub model: ModelSource,
    /// The text the gradients come from.
    pub calibration: Calibration,
    /// The method; without meaning where nothing is compressed.
    pub grasp: Grasp,
    /// Training of what was kept, if any.
    pub recovery: Option<Recovery>,
    /// What to score, if anything.
    pub evaluation: Option<Evaluation>,
    /// What is written.
    pub export: Export,
    /// The user's own labels; kept, never read.
    pub metadata: BTreeMap<String, String>,
    /// Where to tell that it started and how it ended.
    pub webhook_url: Option<String>,
    /// Which of a tenant's jobs goes first: the highest, of −100 to 100.
    pub priority: i64,
    /// Least bytes of memory of the slot that may run it.
    pub min_memory: Option<u64>,
}

impl JobSpec {
    /// Parses a request body and fills in every default.
    ///
    /// # Errors
    /// [`SpecError`] names the first field that is unknown, of the wrong type or out of range.
    pub fn parse(body: &serde_json::Value) -> Result<Self, SpecError> {
        let body: JobBody =
            serde_path_to_error::deserialize(&check::whole_numbers(body)).map_err(|error| check::describe(&error))?;
        check::check(body)
    }

    /// As [`Self::parse`], of the body of an evaluation.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_evaluation(body: &serde_json::Value) -> Result<Self, SpecError> {
        let body: AssessmentBody =
            serde_path_to_error::deserialize(&check::whole_numbers(body)).map_err(|error| check::describe(&error))?;
        check::check(body.into())
    }
}

impl Serialize for JobSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        JobBody::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JobSpec {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        check::check(JobBody::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// `samples` windows of `sequence_length` tokens of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// Where the text comes from: one data set, or several and their shares of the windows.
    pub parts: Vec<CalibrationPart>,
    /// Windows.
    pub samples: usize,
    /// Tokens in a window.
    pub sequence_length: usize,
    /// Which windows of the text.
    pub selection: Selection,
    /// Seed of the random selection.
    pub seed: u64,
}

/// A data set of the calibration text.
#[derive(Clone, Debug, PartialEq)]
pub struct CalibrationPart {
    /// Where the text comes from.
    pub dataset: DatasetName,
    /// Which part of it.
    pub split: String,
    /// Its share of the windows, in proportion to the weights of all.
    pub weight: f64,
}

/// The settings of the compression (sections 3 and 4 of the paper).
#[derive(Clone, Debug, PartialEq)]
pub struct Grasp {
    /// What filled in the fields the body left out.
    pub preset: Preset,
    /// Factorise the redundant layers, or remove them.
    pub method: Method,
    /// Which layers.
    pub layers: Layers,
    /// How redundancy is measured.
    pub layer_metric: LayerMetric,
    /// How many triplets are kept.
    pub size: Size,
    /// When gradients are taken.
    pub schedule: Schedule,
    /// What a triplet is worth.
    pub score: Score,
    /// The basis in which a matrix is decomposed.
    pub basis: Basis,
    /// How the budget is shared between matrices.
    pub allocation: Allocation,
    /// Whether the factors are made once more on the compressed model's own inputs.
    pub refine: Refine,
    /// Where σ goes.
    pub sigma_split: SigmaSplit,
    /// Which matrices of a layer.
    pub projections: Vec<Projection>,
}

/// What to score.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Data sets, in the order of the report.
    pub perplexity: Vec<DatasetName>,
    /// Tokens in a window.
    pub window: usize,
    /// Multiple-choice tasks, in the order of the report.
    pub tasks: Vec<TaskName>,
    /// Tasks that score whole documents.
    pub rolling: Vec<RollingTask>,
    /// Tasks whose answers the model writes.
    pub generation: Vec<GenerationTask>,
    /// Solved examples before each document of a multiple-choice task.
    pub num_fewshot: usize,
    /// At most so many windows of each data set, and documents of each task.
    pub limit: Option<usize>,
    /// Whether the source is scored too.
    pub compare_dense: bool,
    /// Whether speed and memory of generation are measured.
    pub inference: bool,
}

impl Evaluation {
    /// Whether any task is named, of whatever kind.
    pub const fn has_tasks(&self) -> bool {
        !(self.tasks.is_empty() && self.rolling.is_empty() && self.generation.is_empty())
    }
}

/// Which layers are redundant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layers {
    /// graspd chooses how many: what `target_compression` needs, else a quarter of the layers.
    Automatic,
    /// Every layer; which of them change, and how much, is left to the allocation.
    All,
    /// The so many most redundant.
    Count(usize),
    /// These.
    Explicit(Vec<usize>),
}

/// How much is kept: one control, never two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    /// Share of a matrix's parameters that is kept, in (0, 1]: k = ⌊ratio · out · in / (out + in)⌋.
    RetainRatio(f64),
    /// The shortest prefix of the sorted scores whose sum reaches this share, in (0, 1].
    ImportanceThreshold(f64),
    /// Share of all parameters of the model that is removed, in (0, 1).
    TargetCompression(f64),
}

/// Declares an enum whose variants are the snake_case words of the API.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
        }
    };
}

mod recovery;
mod uploads;

pub use recovery::{
    LearningRateSchedule, Recovery, RecoveryBody, RecoveryMethod, RecoveryTarget, Template, TrainingData,
};

words! {
    /// What a job does.
    #[derive(Default)]
    Kind {
        /// Compresses a model, and scores it before and after.
        #[default]
        Compress,
        /// Trains a model as it is, usually a factored one; the same as `grasp: null`.
        Recover,
        /// Scores a model as it is, dense or factored.
        Evaluate,
    }
}
words! {
    /// Which windows of the text are calibrated on.
    Selection {
        /// Windows at places drawn with the seed.
        Random,
        /// Windows one after the other from the start.
        First,
    }
}
words! {
    /// A set of defaults.
    Preset {
        /// As published: taylor scores, plain basis, uniform ranks, block influence, one shot.
        Paper,
        /// What loses least at a given size: energy in the two-sided basis, one budget over all layers.
        Best,
    }
}
words! {
    /// What happens to a redundant layer.
    Method {
        /// Its matrices are replaced by the triplets that matter.
        Grasp,
        /// It is deleted (ShortGPT).
        Remove,
    }
}
words! {
    /// How redundancy is measured.
    LayerMetric {
        /// 1 − mean cosine similarity of a layer's input and output over all tokens (ShortGPT, equation 1).
        BlockInfluence,
        /// Angular distance of the last token over a run of layers (Gromov et al., 2024); gives a contiguous run.
        Angular,
    }
}
words! {
    /// When gradients are taken.
    Schedule {
        /// Once, on the dense model.
        OneShot,
        /// Again for every block, deepest first, on the model as it stands.
        Iterative,
    }
}
words! {
    /// What a singular triplet is worth.
    Score {
        /// |σ · ∂L/∂σ| (equation 8 of the paper).
        Taylor,
        /// |∂L/∂σ|.
        Gradient,
        /// σ: plain truncated SVD.
        Magnitude,
        /// Σ over the windows of (σ · ∂L/∂σ)², the empirical Fisher information; gradients of opposite sign do not cancel.
        Fisher,
        /// σ²: what a triplet adds to the squared norm that the basis measures. In the two-sided basis ½ σ² is the rise
        /// of the loss.
        Energy,
    }
}
words! {
    /// The basis of the decomposition.
    Basis {
        /// The SVD of the weight matrix itself.
        Plain,
        /// The SVD of `W C^½` with C = E[x xᵀ] of the matrix's inputs: least error of its outputs (SVD-LLM, ICLR 2025).
        Whitened,
        /// The SVD of `A^½ W C^½` with A = E[g gᵀ] of the gradients of its outputs too: least rise of the loss, to second
        /// order and with the Fisher information taken as A ⊗ C (K-FAC, Martens and Grosse, 2015).
        TwoSided,
    }
}
words! {
    /// How the budget is shared between matrices.
    Allocation {
        /// The same ratio everywhere.
        Uniform,
        /// One budget for all chosen layers, spent on the triplets with the highest score per parameter; a matrix whose
        /// factors would not be smaller stays dense.
        Global,
    }
}
words! {
    /// Whether the factors are made once more on the compressed model's own inputs.
    Refine {
        /// They stay as the dense model's statistics make them.
        None,
        /// Layer by layer from the first, each towards the dense model's outputs and on the inputs that the compressed
        /// layers before it give; a pass forward, without gradients.
        Sequential,
    }
}
words! {
    /// Where σ goes.
    SigmaSplit {
        /// √σ on both factors.
        Both,
        /// σ on OutLinear, the left factor U.
        Left,
        /// σ on InLinear, the right factor Vᵀ.
        Right,
    }
}

/// A linear projection of a decoder layer, by its name in Hugging Face checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Projection {
    /// Queries.
    QProj,
    /// Keys.
    KProj,
    /// Values.
    VProj,
    /// Attention output.
    OProj,
    /// Gate of the MLP.
    GateProj,
    /// Up projection of the MLP.
    UpProj,
    /// Down projection of the MLP.
    DownProj,
}

impl Projection {
    /// All seven, in the order of a layer.
    pub const ALL: [Self; 7] =
        [Self::QProj, Self::KProj, Self::VProj, Self::OProj, Self::GateProj, Self::UpProj, Self::DownProj];

    /// The module's path inside a layer: `self_attn.q_proj`, `mlp.up_proj`.
    pub const fn path(self) -> &'static str {
        match self {
            Self::QProj => "self_attn.q_proj",
            Self::KProj => "self_attn.k_proj",
            Self::VProj => "self_attn.v_proj",
            Self::OProj => "self_attn.o_proj",
            Self::GateProj => "mlp.gate_proj",
            Self::UpProj => "mlp.up_proj",
            Self::DownProj => "mlp.down_proj",
        }
    }

    /// The first of the projections that read the same input: q, k and v share theirs, gate and up too.
    #[must_use]
    pub const fn input_group(self) -> Self {
        match self {
            Self::QProj | Self::KProj | Self::VProj => Self::QProj,
            Self::GateProj | Self::UpProj => Self::GateProj,
            Self::OProj | Self::DownProj => self,
        }
    }

    /// Whether it belongs to the MLP block (else to attention).
    pub const fn is_mlp(self) -> bool {
        matches!(self, Self::GateProj | Self::UpProj | Self::DownProj)
    }
}

#[cfg(test)]
mod tests;
