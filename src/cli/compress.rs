//! `graspd compress`: a job from flags, a spec file, or both.

#![expect(clippy::doc_markdown, reason = "the comments of arguments are the help text")]

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use super::recovery::RecoveryArguments;
use crate::job::{JobSpec, SpecError};

/// The three controls of size; a flag for one replaces whichever the spec file gives.
const SIZES: [&str; 3] = ["retain_ratio", "importance_threshold", "target_compression"];

/// A job on the command line. Flags win over the spec file.
#[derive(Args, Debug, Default)]
pub struct Arguments {
    /// Folder for the compressed checkpoint; must be empty or not exist
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// A job as JSON, as `POST /v1/jobs` takes it
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// org/name, org/name@revision, file:NAME under the models folder, or job:ID below the data folder
    #[arg(long)]
    model: Option<String>,
    /// best or paper: what fills in the rest
    #[arg(long)]
    preset: Option<String>,
    /// How many layers (8), which (21,22,23; a single one as 21,), or all
    #[arg(long, value_name = "N|LIST|all")]
    layers: Option<String>,
    /// block_influence or angular
    #[arg(long, value_name = "METRIC")]
    layer_metric: Option<String>,
    /// Share of each matrix's parameters kept, in (0, 1]
    #[arg(long, value_name = "SHARE", group = "size")]
    retain_ratio: Option<f64>,
    /// Share of the sum of scores kept, in (0, 1]
    #[arg(long, value_name = "SHARE", group = "size")]
    importance_threshold: Option<f64>,
    /// Share of all parameters removed, in (0, 1)
    #[arg(long, value_name = "SHARE", group = "size")]
    target_compression: Option<f64>,
    /// grasp, or remove to delete the layers
    #[arg(long)]
    method: Option<String>,
    /// one_shot or iterative
    #[arg(long)]
    schedule: Option<String>,
    /// energy, taylor, gradient, magnitude or fisher
    #[arg(long)]
    score: Option<String>,
    /// two_sided, whitened or plain
    #[arg(long)]
    basis: Option<String>,
    /// global or uniform
    #[arg(long)]
    allocation: Option<String>,
    /// sequential or none: the factors again, on the compressed model's own inputs
    #[arg(long)]
    refine: Option<String>,
    /// both, left or right
    #[arg(long)]
    sigma_split: Option<String>,
    /// wikitext2, ptb, c4, or file:NAME under the datasets folder
    #[arg(long, value_name = "NAME")]
    calibration_dataset: Option<String>,
    /// Which part of the calibration text
    #[arg(long, value_name = "SPLIT")]
    calibration_split: Option<String>,
    /// Calibration windows
    #[arg(long, value_name = "N")]
    samples: Option<u64>,
    /// Tokens in a calibration window
    #[arg(long, value_name = "N")]
    sequence_length: Option<u64>,
    /// random or first
    #[arg(long)]
    selection: Option<String>,
    /// Seed of the random selection
    #[arg(long)]
    seed: Option<u64>,
    /// Compress nothing: train the model as it is
    #[arg(long, conflicts_with_all = ["preset", "layers", "layer_metric", "size", "method", "schedule", "score", "basis",
        "allocation", "sigma_split"])]
    no_grasp: bool,
    #[command(flatten)]
    recovery: RecoveryArguments,
    /// Data sets to score, comma-separated
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with = "no_evaluation")]
    perplexity: Vec<String>,
    /// Tasks to score, comma-separated
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with = "no_evaluation")]
    tasks: Vec<String>,
    /// Solved examples before each document of a task
    #[arg(long, value_name = "N", conflicts_with = "no_evaluation")]
    num_fewshot: Option<u64>,
    /// Tokens in an evaluation window
    #[arg(long, value_name = "N", conflicts_with = "no_evaluation")]
    window: Option<u64>,
    /// At most so many evaluation windows of each data set, and documents of each task
    #[arg(long, value_name = "N", conflicts_with = "no_evaluation")]
    eval_limit: Option<u64>,
    /// Score nothing
    #[arg(long)]
    no_evaluation: bool,
    /// What to write, comma-separated: factored, dense
    #[arg(long, value_name = "FORMATS", value_delimiter = ',')]
    formats: Vec<String>,
    /// Type of the numbers written: f32, bf16 or f16
    #[arg(long, value_name = "TYPE")]
    dtype: Option<String>,
    /// The largest file of weights: bytes, or a size such as 5GB
    #[arg(long, value_name = "SIZE")]
    max_shard_size: Option<String>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// The command line names no valid job.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentsError {
    /// The spec file could not be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The spec file is not a JSON object.
    #[error("{path}: {what}")]
    NoObject {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// No model is named.
    #[error("no model: give --model, or --spec with a model in it")]
    NoModel,
    /// `--layers` is no number, no list and not `all`.
    #[error("--layers: '{0}' is none of a number of layers such as 8, a list such as 21,22, or all")]
    Layers(String),
    /// A field is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
}

impl Arguments {
    /// The job these arguments name.
    ///
    /// # Errors
    /// [`ArgumentsError`] says which argument or field is wrong.
    pub fn job(&self) -> Result<JobSpec, ArgumentsError> {
        Ok(JobSpec::parse(&Value::Object(self.body()?))?)
    }

    /// The job as JSON, not checked yet.
    pub(super) fn body(&self) -> Result<Map<String, Value>, ArgumentsError> {
        let mut body = self.spec.as_deref().map_or_else(|| Ok(Map::new()), read_object)?;
        put(&mut body, "model", self.model.as_ref().map(|model| json!(model)));
        if !body.contains_key("model") {
            return Err(ArgumentsError::NoModel);
        }
        self.put_calibration(&mut body);
        self.put_grasp(&mut body)?;
        put_all(&mut body, "recovery", self.recovery.fields());
        self.put_evaluation(&mut body);
        self.put_export(&mut body);
        Ok(body)
    }

    fn put_calibration(&self, body: &mut Map<String, Value>) {
        put_all(
            body,
            "calibration",
            [
                ("dataset", self.calibration_dataset.as_ref().map(|name| json!(name))),
                ("split", self.calibration_split.as_ref().map(|split| json!(split))),
                ("samples", self.samples.map(|samples| json!(samples))),
                ("sequence_length", self.sequence_length.map(|length| json!(length))),
                ("selection", self.selection.as_ref().map(|selection| json!(selection))),
                ("seed", self.seed.map(|seed| json!(seed))),
            ],
        );
    }

    fn put_grasp(&self, body: &mut Map<String, Value>) -> Result<(), ArgumentsError> {
        if self.no_grasp {
            body.insert("grasp".to_owned(), Value::Null);
            return Ok(());
        }
        let sizes = [self.retain_ratio, self.importance_threshold, self.target_compression];
        if sizes.iter().any(Option::is_some)
            && let Some(Value::Object(grasp)) = body.get_mut("grasp")
        {
            grasp.retain(|name, _| !SIZES.contains(&name.as_str()));
        }
        let [retain_ratio, importance_threshold, target_compression] = sizes.map(|share| share.map(number));
        put_all(
            body,
            "grasp",
            [
                ("preset", self.preset.as_ref().map(|preset| json!(preset))),
                ("layers", self.layers.as_deref().map(layers).transpose()?),
                ("layer_metric", self.layer_metric.as_ref().map(|metric| json!(metric))),
                ("retain_ratio", retain_ratio),
                ("importance_threshold", importance_threshold),
                ("target_compression", target_compression),
                ("method", self.method.as_ref().map(|method| json!(method))),
                ("schedule", self.schedule.as_ref().map(|schedule| json!(schedule))),
                ("score", self.score.as_ref().map(|score| json!(score))),
                ("basis", self.basis.as_ref().map(|basis| json!(basis))),
                ("allocation", self.allocation.as_ref().map(|allocation| json!(allocation))),
                ("refine", self.refine.as_ref().map(|refine| json!(refine))),
                ("sigma_split", self.sigma_split.as_ref().map(|split| json!(split))),
            ],
        );
        Ok(())
    }

    fn put_export(&self, body: &mut Map<String, Value>) {
        let formats = Some(&self.formats).filter(|formats| !formats.is_empty());
        put_all(
            body,
            "export",
            [
                ("formats", formats.map(|formats| json!(formats))),
                ("dtype", self.dtype.as_ref().map(|dtype| json!(dtype))),
                ("max_shard_size", self.max_shard_size.as_ref().map(|size| json!(size))),
            ],
        );
    }

    fn put_evaluation(&self, body: &mut Map<String, Value>) {
        if self.no_evaluation {
            body.insert("evaluation".to_owned(), Value::Null);
            return;
        }
        let names = |names: &Vec<String>| Some(json!(names)).filter(|_| !names.is_empty());
        put_all(
            body,
            "evaluation",
            [
                ("perplexity", names(&self.perplexity)),
                ("tasks", names(&self.tasks)),
                ("num_fewshot", self.num_fewshot.map(|shots| json!(shots))),
                ("window", self.window.map(|window| json!(window))),
                ("limit", self.eval_limit.map(|limit| json!(limit))),
            ],
        );
    }
}

/// A share as JSON, which has no NaN: that goes on as a word, so that the field is named.
pub(super) fn number(share: f64) -> Value {
    if share.is_finite() { json!(share) } else { json!(share.to_string()) }
}

fn put(object: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), value);
    }
}

fn put_all<const N: usize>(body: &mut Map<String, Value>, section: &str, fields: [(&str, Option<Value>); N]) {
    if fields.iter().all(|(_, value)| value.is_none()) {
        return;
    }
    let object = body.entry(section).or_insert_with(|| json!({}));
    if object.is_null() {
        *object = json!({});
    }
    // Anything else that is no object is left for the parser to complain of.
    if let Value::Object(object) = object {
        for (name, value) in fields {
            put(object, name, value);
        }
    }
}

fn layers(text: &str) -> Result<Value, ArgumentsError> {
    if text.trim() == "all" {
        return Ok(json!("all"));
    }
    let wrong = || ArgumentsError::Layers(text.to_owned());
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    if inner == text.trim() && !text.contains(',') {
        return text.trim().parse::<u64>().map(|count| json!(count)).map_err(|_| wrong());
    }
    let indices = inner.trim_end_matches(',').split(',').map(|index| index.trim().parse::<u64>());
    indices.collect::<Result<Vec<_>, _>>().map(|indices| json!(indices)).map_err(|_| wrong())
}

fn read_object(path: &Path) -> Result<Map<String, Value>, ArgumentsError> {
    let text = std::fs::read(path).map_err(|source| ArgumentsError::File { path: path.to_owned(), source })?;
    let no_object = |what: String| ArgumentsError::NoObject { path: path.to_owned(), what };
    match serde_json::from_slice(&text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(no_object("a job is a JSON object".to_owned())),
        Err(error) => Err(no_object(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
