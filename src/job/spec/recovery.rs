//! `recovery`: training of what was kept, as asked for, before and after it is checked.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    SpecError,
    check::{parse, within, wrong},
};
use crate::job::DatasetName;

words! {
    /// What is trained.
    RecoveryMethod {
        /// Low-rank adapters on every matrix, merged at the end (the paper).
        Lora,
        /// All parameters (the reference code).
        Full,
    }
}
words! {
    /// How the learning rate falls after the warm-up.
    LearningRateSchedule {
        /// In a straight line to nought.
        Linear,
        /// Along half a cosine to nought.
        Cosine,
    }
}
words! {
    /// How a record becomes a prompt.
    Template {
        /// Instruction, input where there is one, and response under headings.
        Alpaca,
    }
}
words! {
    /// Which layers are trained.
    RecoveryTarget {
        /// Those that were compressed.
        RedundantLayers,
        /// All of them.
        AllLayers,
    }
}

/// What the model is trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrainingData {
    /// 52,000 instructions with answers.
    Alpaca,
    /// The user's own text or records: a file of the server's, or an upload.
    Own(DatasetName),
}

impl FromStr for TrainingData {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "alpaca" => Ok(Self::Alpaca),
            _ if text.starts_with("file:") || text.starts_with("ds_") => text.parse().map(Self::Own),
            _ => Err(format!(
                "'{text}' cannot be trained on: use alpaca, file:NAME for a text or records under the data sets folder, or the id of an uploaded one"
            )),
        }
    }
}

impl fmt::Display for TrainingData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alpaca => f.write_str("alpaca"),
            Self::Own(name) => name.fmt(f),
        }
    }
}

/// How what was kept is trained (the starred rows of the paper's tables).
#[derive(Clone, Debug, PartialEq)]
pub struct Recovery {
    /// Adapters or everything.
    pub method: RecoveryMethod,
    /// Text or records.
    pub dataset: TrainingData,
    /// Times through the data.
    pub epochs: usize,
    /// At most so many optimiser steps.
    pub max_steps: Option<usize>,
    /// Learning rate after the warm-up.
    pub learning_rate: f64,
    /// Records of a step.
    pub batch_size: usize,
    /// Records that go through the model at once.
    pub micro_batch_size: usize,
    /// Tokens of a record; the rest is cut off.
    pub max_length: usize,
    /// Steps in which the learning rate rises; at most a tenth of all.
    pub warmup_steps: usize,
    /// How it falls afterwards.
    pub lr_schedule: LearningRateSchedule,
    /// Share of the weights taken away at each step, times the learning rate.
    pub weight_decay: f64,
    /// Largest norm of a step's gradients; they are scaled down to it.
    pub max_grad_norm: f64,
    /// Records kept back to validate on; at most a tenth of all.
    pub validation_size: usize,
    /// Steps between validations.
    pub validate_every: usize,
    /// Whether the tokens of the prompt count in the loss too.
    pub train_on_inputs: bool,
    /// How a record becomes a prompt.
    pub template: Template,
    /// Decides the order of the records, what is validated on, and dropout.
    pub seed: u64,
    /// Rank of the adapters, at most the smaller side of a matrix.
    pub rank: usize,
    /// Adapters are scaled by alpha / rank.
    pub alpha: f64,
    /// Probability with which an input of an adapter is dropped.
    pub dropout: f64,
    /// Which layers.
    pub target: RecoveryTarget,
    /// Whether the checkpoint before recovery is published too.
    pub keep_unrecovered: bool,
}

/// Training of what was kept; `{}` for the paper's settings.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecoveryBody {
    /// Default: lora.
    pub method: Option<RecoveryMethod>,
    /// `alpaca`, `file:NAME` under the server's data sets folder, or the id of an uploaded one, `ds_…`: a text, or records
    /// with `instruction`, `input` and `output`. Default: alpaca.
    #[schema(default = "alpaca")]
    pub dataset: Option<String>,
    /// Times through the data. Default: 1.
    #[schema(default = 1, minimum = 1, maximum = 1000)]
    pub epochs: Option<usize>,
    /// At most so many optimiser steps. Default: as many as the epochs have.
    #[schema(minimum = 1)]
    pub max_steps: Option<usize>,
    /// Learning rate after the warm-up, in (0, 1). Default: 0.0003.
    #[schema(default = 3e-4, exclusive_minimum = 0, exclusive_maximum = 1)]
    pub learning_rate: Option<f64>,
    /// Records of a step. Default: 32.
    #[schema(default = 32, minimum = 1, maximum = 4096)]
    pub batch_size: Option<usize>,
    /// Records that go through the model at once, at most `batch_size`. Default: 4, or `batch_size` where that is less.
    #[schema(default = 4, minimum = 1)]
    pub micro_batch_size: Option<usize>,
    /// Tokens of a record; the rest is cut off. Default: 256.
    #[schema(default = 256, minimum = 2, maximum = 131_072)]
    pub max_length: Option<usize>,
    /// Steps in which the learning rate rises, at most a tenth of all. Default: 100.
    #[schema(default = 100)]
    pub warmup_steps: Option<usize>,
    /// Default: linear.
    pub lr_schedule: Option<LearningRateSchedule>,
    /// Default: 0.
    #[schema(default = 0.0, minimum = 0, exclusive_maximum = 1)]
    pub weight_decay: Option<f64>,
    /// Largest norm of a step's gradients. Default: 1.
    #[schema(default = 1.0, exclusive_minimum = 0)]
    pub max_grad_norm: Option<f64>,
    /// Records kept back to validate on, at most a tenth of all. Default: 2000.
    #[schema(default = 2000)]
    pub validation_size: Option<usize>,
    /// Steps between validations; there is always one at the end. Default: 200.
    #[schema(default = 200, minimum = 1)]
    pub validate_every: Option<usize>,
    /// Whether the tokens of the prompt count in the loss too. Default: false.
    #[schema(default = false)]
    pub train_on_inputs: Option<bool>,
    /// Default: alpaca.
    pub template: Option<Template>,
    /// Seed of the order, the validation records and dropout. Default: 42.
    #[schema(default = 42)]
    pub seed: Option<u64>,
    /// Rank of the adapters, at most the smaller side of a matrix; `lora` only. Default: 256.
    #[schema(default = 256, minimum = 1, maximum = 65_536)]
    pub rank: Option<usize>,
    /// Adapters are scaled by alpha / rank; `lora` only. Default: 16.
    #[schema(default = 16.0, exclusive_minimum = 0)]
    pub alpha: Option<f64>,
    /// Probability with which an input of an adapter is dropped, in [0, 1); `lora` only. Default: 0.05.
    #[schema(default = 0.05, minimum = 0, exclusive_maximum = 1)]
    pub dropout: Option<f64>,
    /// Default: `redundant_layers`.
    pub target: Option<RecoveryTarget>,
    /// Whether the checkpoint before recovery is published too, as the folder `unrecovered`. Default: false.
    #[schema(default = false)]
    pub keep_unrecovered: Option<bool>,
}

/// The longest window of the field.
const LONGEST: usize = 131_072;

pub(super) fn check(body: &RecoveryBody) -> Result<Recovery, SpecError> {
    let method = body.method.unwrap_or(RecoveryMethod::Lora);
    only_for_adapters(body, method)?;
    let batch_size = within("recovery.batch_size", body.batch_size.unwrap_or(32), 1, 4096)?;
    let micro_batch_size = body.micro_batch_size.unwrap_or_else(|| batch_size.min(4));
    Ok(Recovery {
        method,
        dataset: parse("recovery.dataset", body.dataset.as_deref().unwrap_or("alpaca"))?,
        epochs: within("recovery.epochs", body.epochs.unwrap_or(1), 1, 1000)?,
        max_steps: body.max_steps.map(|steps| within("recovery.max_steps", steps, 1, usize::MAX)).transpose()?,
        learning_rate: between("recovery.learning_rate", body.learning_rate.unwrap_or(3e-4), Range::Open)?,
        batch_size,
        micro_batch_size: within("recovery.micro_batch_size", micro_batch_size, 1, batch_size)?,
        max_length: within("recovery.max_length", body.max_length.unwrap_or(256), 2, LONGEST)?,
        warmup_steps: body.warmup_steps.unwrap_or(100),
        lr_schedule: body.lr_schedule.unwrap_or(LearningRateSchedule::Linear),
        weight_decay: between("recovery.weight_decay", body.weight_decay.unwrap_or(0.0), Range::FromNought)?,
        max_grad_norm: between("recovery.max_grad_norm", body.max_grad_norm.unwrap_or(1.0), Range::Positive)?,
        validation_size: body.validation_size.unwrap_or(2000),
        validate_every: within("recovery.validate_every", body.validate_every.unwrap_or(200), 1, usize::MAX)?,
        train_on_inputs: body.train_on_inputs.unwrap_or(false),
        template: body.template.unwrap_or(Template::Alpaca),
        seed: body.seed.unwrap_or(42),
        rank: within("recovery.rank", body.rank.unwrap_or(256), 1, 65_536)?,
        alpha: between("recovery.alpha", body.alpha.unwrap_or(16.0), Range::Positive)?,
        dropout: between("recovery.dropout", body.dropout.unwrap_or(0.05), Range::FromNought)?,
        target: body.target.unwrap_or(RecoveryTarget::RedundantLayers),
        keep_unrecovered: body.keep_unrecovered.unwrap_or(false),
    })
}

/// A complete spec names the adapters' fields only with the method that has adapters.
fn only_for_adapters(body: &RecoveryBody, method: RecoveryMethod) -> Result<(), SpecError> {
    let given = [
        ("recovery.rank", body.rank.is_some()),
        ("recovery.alpha", body.alpha.is_some()),
        ("recovery.dropout", body.dropout.is_some()),
    ];
    match (method, given.iter().find(|(_, given)| *given)) {
        (RecoveryMethod::Full, Some((field, _))) => {
            Err(wrong(*field, "has no meaning with method 'full', which has no adapters"))
        }
        (RecoveryMethod::Full | RecoveryMethod::Lora, _) => Ok(()),
    }
}

#[derive(Clone, Copy)]
enum Range {
    /// (0, 1).
    Open,
    /// [0, 1).
    FromNought,
    /// (0, ∞).
    Positive,
}

fn between(field: &str, value: f64, range: Range) -> Result<f64, SpecError> {
    let (holds, words) = match range {
        Range::Open => (value > 0.0 && value < 1.0, "in (0, 1)"),
        Range::FromNought => ((0.0..1.0).contains(&value), "in [0, 1)"),
        Range::Positive => (value > 0.0 && value.is_finite(), "above 0"),
    };
    if holds { Ok(value) } else { Err(wrong(field, format!("{value} is out of range: it must lie {words}"))) }
}

impl From<&Recovery> for RecoveryBody {
    fn from(recovery: &Recovery) -> Self {
        let adapters = recovery.method == RecoveryMethod::Lora;
        Self {
            method: Some(recovery.method),
            dataset: Some(recovery.dataset.to_string()),
            epochs: Some(recovery.epochs),
            max_steps: recovery.max_steps,
            learning_rate: Some(recovery.learning_rate),
            batch_size: Some(recovery.batch_size),
            micro_batch_size: Some(recovery.micro_batch_size),
            max_length: Some(recovery.max_length),
            warmup_steps: Some(recovery.warmup_steps),
            lr_schedule: Some(recovery.lr_schedule),
            weight_decay: Some(recovery.weight_decay),
            max_grad_norm: Some(recovery.max_grad_norm),
            validation_size: Some(recovery.validation_size),
            validate_every: Some(recovery.validate_every),
            train_on_inputs: Some(recovery.train_on_inputs),
            template: Some(recovery.template),
            seed: Some(recovery.seed),
            rank: adapters.then_some(recovery.rank),
            alpha: adapters.then_some(recovery.alpha),
            dropout: adapters.then_some(recovery.dropout),
            target: Some(recovery.target),
            keep_unrecovered: Some(recovery.keep_unrecovered),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::job::JobSpec;

    fn parse(recovery: &Value) -> Result<Option<Recovery>, SpecError> {
        JobSpec::parse(&json!({"model": "a/b", "recovery": recovery})).map(|spec| spec.recovery)
    }

    #[test]
    fn there_is_none_unless_it_is_asked_for() {
        assert_eq!(JobSpec::parse(&json!({"model": "a/b"})).unwrap().recovery, None);
        assert_eq!(parse(&Value::Null).unwrap(), None);
        let recovery = parse(&json!({})).unwrap().unwrap();
        assert_eq!((recovery.method, recovery.rank, recovery.epochs), (RecoveryMethod::Lora, 256, 1));
    }

    #[test]
    fn every_wrong_field_is_named() {
        for (body, field) in [
            (json!({"method": "qlora"}), "recovery.method"),
            (json!({"dataset": "wikitext2"}), "recovery.dataset"),
            (json!({"dataset": "file:../x"}), "recovery.dataset"),
            (json!({"epochs": 0}), "recovery.epochs"),
            (json!({"max_steps": 0}), "recovery.max_steps"),
            (json!({"learning_rate": 0}), "recovery.learning_rate"),
            (json!({"batch_size": 4, "micro_batch_size": 8}), "recovery.micro_batch_size"),
            (json!({"max_length": 1}), "recovery.max_length"),
            (json!({"weight_decay": -0.1}), "recovery.weight_decay"),
            (json!({"max_grad_norm": 0}), "recovery.max_grad_norm"),
            (json!({"dropout": 1}), "recovery.dropout"),
            (json!({"method": "full", "rank": 8}), "recovery.rank"),
            (json!({"target": "some"}), "recovery.target"),
            (json!({"lora_rank": 8}), "recovery.lora_rank"),
        ] {
            assert_eq!(parse(&body).unwrap_err().field, field, "{body}");
        }
    }

    #[test]
    fn a_complete_recovery_reads_back_as_itself() {
        for body in [json!({}), json!({"method": "full", "dataset": "file:mine", "max_steps": 7})] {
            let recovery = parse(&body).unwrap().unwrap();
            let text = serde_json::to_value(RecoveryBody::from(&recovery)).unwrap();
            assert_eq!(parse(&text).unwrap().unwrap(), recovery);
        }
    }
}
