//! The JSON of a spec, field by field, before it is checked and after it is complete.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::{
    ToSchema,
    openapi::{Object, ObjectBuilder, Type},
};

use super::{
    Allocation, Basis, Calibration, CalibrationPart, Evaluation, ExportBody, Grasp, JobSpec, Kind, LayerMetric, Layers,
    Method, Preset, Projection, RecoveryBody, Refine, Schedule, Score, Selection, ShardSizeBody, SigmaSplit, Size,
};

/// A job, as the body of `POST /v1/jobs`. Every field but `model` has a default.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = JobSpec, example = json!({"model": "HuggingFaceTB/SmolLM2-135M", "grasp": {"layers": 8, "retain_ratio": 0.3}}))]
pub struct JobBody {
    /// `compress`; `evaluate`: score the model as it is; or `recover`: train it as it is. Default: compress, or recover
    /// where `grasp` is null.
    #[serde(default, skip_serializing_if = "is_default")]
    pub kind: Kind,
    /// `org/name[@revision]` on the hub; `file:NAME`, a folder under the server's models folder; or `job:ID`, the
    /// checkpoint that a finished job of yours has published (the factored one where there are two).
    pub model: String,
    /// The text the gradients come from.
    #[serde(default, skip_serializing_if = "is_default")]
    pub calibration: CalibrationBody,
    /// The method; `null`, with `recovery`, trains the model as it is without compressing it.
    #[serde(default = "some_default", skip_serializing_if = "is_some_default", deserialize_with = "null_is_none")]
    pub grasp: Option<GraspBody>,
    /// Training of what was kept; `null`, the default, for none.
    #[serde(default)]
    pub recovery: Option<RecoveryBody>,
    /// What to score; `null` for nothing.
    #[serde(default = "some_default", deserialize_with = "null_is_none")]
    pub evaluation: Option<EvaluationBody>,
    /// What is written.
    #[serde(default)]
    pub export: ExportBody,
    /// The user's own labels: at most 16, keys up to 64 characters, values up to 512.
    #[serde(default)]
    #[schema(schema_with = labels)]
    pub metadata: BTreeMap<String, String>,
    /// `https://…`: told by a signed POST (Standard Webhooks) when the job starts, succeeds, fails or is cancelled, where
    /// the service allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 2048, pattern = "^https?://")]
    pub webhook_url: Option<String>,
    /// −100 to 100: of your jobs that wait, the highest goes first. Default: 0.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schema(minimum = -100, maximum = 100)]
    pub priority: i64,
    /// Least memory of the slot that may run it, such as 40GB. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_memory: Option<ShardSizeBody>,
}

/// An evaluation, as the body of `POST /v1/evaluations`: a job that scores a model as it is, dense or factored.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EvaluationSpec, example = json!({"model": "HuggingFaceTB/SmolLM2-135M", "evaluation": {"perplexity": ["wikitext2"], "tasks": ["piqa", "arc_easy"], "limit": 200}}))]
pub struct AssessmentBody {
    /// `org/name[@revision]` on the hub; `file:NAME`, a folder under the server's models folder; or `job:ID`, the
    /// checkpoint that a finished job of yours has published (the factored one where there are two).
    pub model: String,
    /// What to score.
    #[serde(default)]
    pub evaluation: EvaluationBody,
    /// The user's own labels: at most 16, keys up to 64 characters, values up to 512.
    #[serde(default)]
    #[schema(schema_with = labels)]
    pub metadata: BTreeMap<String, String>,
    /// `https://…`: told by a signed POST (Standard Webhooks) when the job starts, succeeds, fails or is cancelled, where
    /// the service allows it.
    #[serde(default)]
    #[schema(max_length = 2048, pattern = "^https?://")]
    pub webhook_url: Option<String>,
    /// −100 to 100: of your jobs that wait, the highest goes first. Default: 0.
    #[serde(default)]
    #[schema(minimum = -100, maximum = 100)]
    pub priority: i64,
    /// Least memory of the slot that may run it, such as 40GB. Default: any.
    #[serde(default)]
    pub min_memory: Option<ShardSizeBody>,
}

impl From<AssessmentBody> for JobBody {
    fn from(body: AssessmentBody) -> Self {
        Self {
            kind: Kind::Evaluate,
            model: body.model,
            calibration: CalibrationBody::default(),
            grasp: some_default(),
            recovery: None,
            evaluation: Some(body.evaluation),
            export: ExportBody::default(),
            metadata: body.metadata,
            webhook_url: body.webhook_url,
            priority: body.priority,
            min_memory: body.min_memory,
        }
    }
}

fn labels() -> Object {
    let text = |least, most| ObjectBuilder::new().schema_type(Type::String).min_length(least).max_length(Some(most));
    ObjectBuilder::new()
        .description(Some("The user's own labels: at most 16, keys up to 64 characters, values up to 512."))
        .max_properties(Some(16))
        .property_names(Some(text(Some(1), 64).build()))
        .additional_properties(Some(text(None, 512)))
        .build()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

// A field that is absent means the default, an explicit null means none.
#[expect(clippy::unnecessary_wraps, reason = "serde wants the field's own type")]
fn some_default<T: Default>() -> Option<T> {
    Some(T::default())
}

#[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
fn is_some_default<T: Default + PartialEq>(value: &Option<T>) -> bool {
    *value == some_default()
}

fn null_is_none<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

/// Calibration text: `samples` windows of `sequence_length` tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CalibrationBody {
    /// `wikitext2`, `ptb`, `c4`, `file:NAME` under the server's data sets folder, or the id of an uploaded one, `ds_…`.
    /// Default: wikitext2.
    #[schema(default = "wikitext2")]
    pub dataset: Option<String>,
    /// Instead of `dataset`: several, and their shares of the windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datasets: Option<Vec<CalibrationPartBody>>,
    /// Which part of the data set. Default: train.
    #[schema(default = "train")]
    pub split: Option<String>,
    /// Windows. Default: 128.
    #[schema(default = 128, minimum = 1, maximum = 65536)]
    pub samples: Option<usize>,
    /// Tokens in a window. Default: 512.
    #[schema(default = 512, minimum = 2, maximum = 131_072)]
    pub sequence_length: Option<usize>,
    /// Windows at random places, or from the start. Default: random.
    pub selection: Option<Selection>,
    /// Seed of the random selection. Default: 42.
    #[schema(default = 42)]
    pub seed: Option<u64>,
}

/// One of several calibration texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CalibrationPartBody {
    /// As `calibration.dataset`.
    pub dataset: String,
    /// Which part of it. Default: `calibration.split`.
    #[serde(default)]
    pub split: Option<String>,
    /// Its share of the windows, in proportion to the weights of all. Default: 1.
    #[serde(default)]
    #[schema(default = 1.0, exclusive_minimum = 0)]
    pub weight: Option<f64>,
}

/// The method. At most one of `retain_ratio`, `importance_threshold` and `target_compression`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GraspBody {
    /// Fills in what the body leaves out. Default: best.
    pub preset: Option<Preset>,
    /// Default: grasp.
    pub method: Option<Method>,
    /// How many layers, which, or `"all"`. Default: all with a global allocation, else a quarter of the model's, or as many
    /// as `target_compression` needs.
    pub layers: Option<LayersBody>,
    /// Default: `block_influence`.
    pub layer_metric: Option<LayerMetric>,
    /// Share of each matrix's parameters kept, in (0, 1]; with a global allocation, of all chosen matrices together.
    /// Default: 0.1, when no other control is given and the preset chooses no target.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub retain_ratio: Option<f64>,
    /// Share of the sum of scores kept, in (0, 1].
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub importance_threshold: Option<f64>,
    /// Share of all parameters of the model removed, in (0, 1). Default: 0.2 with preset best, when neither layers nor
    /// another control are given.
    #[schema(exclusive_minimum = 0, exclusive_maximum = 1)]
    pub target_compression: Option<f64>,
    /// Default: `one_shot`.
    pub schedule: Option<Schedule>,
    /// Default: energy with preset best, taylor with preset paper or in the plain basis.
    pub score: Option<Score>,
    /// Default: `two_sided` with preset best, plain with preset paper or with a score other than energy.
    pub basis: Option<Basis>,
    /// Default: global with preset best where it makes sense, else uniform.
    pub allocation: Option<Allocation>,
    /// Default: sequential with preset best in the `two_sided` basis where it makes sense, else none.
    pub refine: Option<Refine>,
    /// Default: both.
    pub sigma_split: Option<SigmaSplit>,
    /// Which matrices of a layer. Default: all seven.
    pub projections: Option<Vec<Projection>>,
}

/// What to score, before and after.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationBody {
    /// Data sets for perplexity. Default: wikitext2.
    pub perplexity: Option<Vec<String>>,
    /// Tasks, asked and counted as lm-evaluation-harness does: `openbookqa`, `arc_easy`,
    /// `arc_challenge`, `winogrande`, `hellaswag`, `piqa`, `mathqa`, `boolq`; `wikitext`, its rolling perplexities; and
    /// `coqa`, whose answers the model writes. So it does in `LongBench`'s English sets, asked and counted as `LongBench` does:
    /// `longbench_` with `narrativeqa`, `qasper`, `multifieldqa_en`, `hotpotqa`, `2wikimqa`, `musique`, `gov_report`,
    /// `qmsum`, `multi_news`, `trec`, `triviaqa`, `samsum`, `passage_count`, `passage_retrieval_en`, `lcc`, `repobench-p`.
    /// Default: none.
    pub tasks: Option<Vec<String>>,
    /// Solved examples before each document of a multiple-choice task. Default: 0.
    #[schema(default = 0, maximum = 64)]
    pub num_fewshot: Option<usize>,
    /// Tokens in a window, clamped to the model's longest context. Default: 2048.
    #[schema(default = 2048, minimum = 2, maximum = 131_072)]
    pub window: Option<usize>,
    /// At most so many windows of each data set, and documents of each task. Default: all.
    #[schema(minimum = 1)]
    pub limit: Option<usize>,
    /// Whether the source is scored too. Default: true.
    #[schema(default = true)]
    pub compare_dense: Option<bool>,
    /// Whether speed and memory of generation are measured. Default: true.
    #[schema(default = true)]
    pub inference: Option<bool>,
}

/// A number of layers, a list of layer indices, or `"all"`.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum LayersBody {
    /// Every layer.
    Word(LayersWord),
    /// The so many most redundant.
    Count(usize),
    /// These, from 0.
    Explicit(Vec<usize>),
}

/// The word that stands for layers.
#[derive(Clone, PartialEq, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LayersWord {
    /// Every layer.
    All,
}

impl<'de> Deserialize<'de> for LayersBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LayersVisitor)
    }
}

struct LayersVisitor;

impl<'de> de::Visitor<'de> for LayersVisitor {
    type Value = LayersBody;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of layers such as 8, a list of layer indices such as [21, 22], or \"all\"")
    }

    fn visit_u64<E: de::Error>(self, count: u64) -> Result<LayersBody, E> {
        usize::try_from(count).map(LayersBody::Count).map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<LayersBody, E> {
        match word {
            "all" => Ok(LayersBody::Word(LayersWord::All)),
            _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
        }
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<LayersBody, A::Error> {
        let mut indices = Vec::new();
        while let Some(index) = list.next_element()? {
            indices.push(index);
        }
        Ok(LayersBody::Explicit(indices))
    }
}

impl From<&JobSpec> for JobBody {
    fn from(spec: &JobSpec) -> Self {
        // Settings of a compression mean nothing where nothing is compressed, and are left out.
        let (calibration, grasp) = match spec.kind {
            Kind::Compress => (CalibrationBody::from(&spec.calibration), Some(GraspBody::from(&spec.grasp))),
            Kind::Recover => (CalibrationBody::default(), None),
            Kind::Evaluate => (CalibrationBody::default(), some_default()),
        };
        Self {
            kind: spec.kind,
            model: spec.model.to_string(),
            calibration,
            grasp,
            recovery: spec.recovery.as_ref().map(RecoveryBody::from),
            evaluation: spec.evaluation.as_ref().map(EvaluationBody::from),
            export: ExportBody::from(spec),
            metadata: spec.metadata.clone(),
            webhook_url: spec.webhook_url.clone(),
            priority: spec.priority,
            min_memory: spec.min_memory.map(ShardSizeBody::Bytes),
        }
    }
}

impl From<&Calibration> for CalibrationBody {
    fn from(calibration: &Calibration) -> Self {
        let (dataset, split, datasets) = match calibration.parts.as_slice() {
            [one] => (Some(one.dataset.to_string()), Some(one.split.clone()), None),
            parts => (None, None, Some(parts.iter().map(CalibrationPartBody::from).collect())),
        };
        Self {
            dataset,
            datasets,
            split,
            samples: Some(calibration.samples),
            sequence_length: Some(calibration.sequence_length),
            selection: Some(calibration.selection),
            seed: Some(calibration.seed),
        }
    }
}

impl From<&CalibrationPart> for CalibrationPartBody {
    fn from(part: &CalibrationPart) -> Self {
        Self { dataset: part.dataset.to_string(), split: Some(part.split.clone()), weight: Some(part.weight) }
    }
}

impl From<&Grasp> for GraspBody {
    fn from(grasp: &Grasp) -> Self {
        let (mut retain_ratio, mut importance_threshold, mut target_compression) = (None, None, None);
        match grasp.size {
            Size::RetainRatio(share) => retain_ratio = Some(share),
            Size::ImportanceThreshold(share) => importance_threshold = Some(share),
            Size::TargetCompression(share) => target_compression = Some(share),
        }
        Self {
            preset: Some(grasp.preset),
            method: Some(grasp.method),
            layers: match &grasp.layers {
                Layers::Automatic => None,
                Layers::All => Some(LayersBody::Word(LayersWord::All)),
                Layers::Count(count) => Some(LayersBody::Count(*count)),
                Layers::Explicit(indices) => Some(LayersBody::Explicit(indices.clone())),
            },
            layer_metric: Some(grasp.layer_metric),
            retain_ratio,
            importance_threshold,
            target_compression,
            schedule: Some(grasp.schedule),
            score: Some(grasp.score),
            basis: Some(grasp.basis),
            allocation: Some(grasp.allocation),
            refine: Some(grasp.refine),
            sigma_split: Some(grasp.sigma_split),
            projections: Some(grasp.projections.clone()),
        }
    }
}

impl From<&Evaluation> for EvaluationBody {
    fn from(evaluation: &Evaluation) -> Self {
        let choices = evaluation.tasks.iter().map(ToString::to_string);
        let rolling = evaluation.rolling.iter().map(ToString::to_string);
        let generation = evaluation.generation.iter().map(ToString::to_string);
        Self {
            perplexity: Some(evaluation.perplexity.iter().map(ToString::to_string).collect()),
            window: Some(evaluation.window),
            tasks: Some(choices.chain(rolling).chain(generation).collect()),
            num_fewshot: Some(evaluation.num_fewshot),
            limit: evaluation.limit,
            compare_dense: Some(evaluation.compare_dense),
            inference: Some(evaluation.inference),
        }
    }
}
