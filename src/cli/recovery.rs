//! The flags of `graspd compress` that ask for recovery.

#![expect(clippy::doc_markdown, reason = "the comments of arguments are the help text")]

use clap::Args;
use serde_json::{Value, json};

use super::compress::number;

/// Recovery on the command line; any of these flags asks for it.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Recovery: training of what was kept")]
pub(super) struct RecoveryArguments {
    /// Train what was kept: lora (adapters, merged at the end) or full (all parameters)
    #[arg(long, value_name = "METHOD")]
    recovery: Option<String>,
    /// alpaca, or file:NAME under the datasets folder
    #[arg(long, value_name = "NAME")]
    recovery_dataset: Option<String>,
    /// redundant_layers or all_layers
    #[arg(long, value_name = "LAYERS")]
    recovery_target: Option<String>,
    /// Seed of the order, the validation records and dropout
    #[arg(long, value_name = "SEED")]
    recovery_seed: Option<u64>,
    /// Times through the training data
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// At most so many optimiser steps
    #[arg(long, value_name = "N")]
    max_steps: Option<u64>,
    /// Learning rate after the warm-up
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Steps in which the learning rate rises
    #[arg(long, value_name = "N")]
    warmup_steps: Option<u64>,
    /// linear or cosine: how the learning rate falls
    #[arg(long, value_name = "SCHEDULE")]
    lr_schedule: Option<String>,
    /// Records of a step
    #[arg(long, value_name = "N")]
    batch_size: Option<u64>,
    /// Records that go through the model at once
    #[arg(long, value_name = "N")]
    micro_batch_size: Option<u64>,
    /// Tokens of a record
    #[arg(long, value_name = "N")]
    max_length: Option<u64>,
    /// AdamW's weight decay
    #[arg(long, value_name = "SHARE")]
    weight_decay: Option<f64>,
    /// Largest norm of a step's gradients
    #[arg(long, value_name = "NORM")]
    max_grad_norm: Option<f64>,
    /// Records kept back to validate on
    #[arg(long, value_name = "N")]
    validation_size: Option<u64>,
    /// Steps between validations
    #[arg(long, value_name = "N")]
    validate_every: Option<u64>,
    /// Count the tokens of the prompt in the loss too
    #[arg(long)]
    train_on_inputs: bool,
    /// Rank of the adapters
    #[arg(long, value_name = "N")]
    rank: Option<u64>,
    /// Adapters are scaled by alpha / rank
    #[arg(long, value_name = "ALPHA")]
    alpha: Option<f64>,
    /// Probability with which an input of an adapter is dropped
    #[arg(long, value_name = "SHARE")]
    dropout: Option<f64>,
    /// Publish the checkpoint before recovery too
    #[arg(long)]
    keep_unrecovered: bool,
}

impl RecoveryArguments {
    /// The fields of `recovery` that the flags give.
    pub(super) fn fields(&self) -> [(&'static str, Option<Value>); 21] {
        let text = |value: &Option<String>| value.as_ref().map(|value| json!(value));
        let whole = |value: Option<u64>| value.map(|value| json!(value));
        let share = |value: Option<f64>| value.map(number);
        let flag = |given: bool| given.then(|| json!(true));
        [
            ("method", text(&self.recovery)),
            ("dataset", text(&self.recovery_dataset)),
            ("target", text(&self.recovery_target)),
            ("seed", whole(self.recovery_seed)),
            ("epochs", whole(self.epochs)),
            ("max_steps", whole(self.max_steps)),
            ("learning_rate", share(self.learning_rate)),
            ("warmup_steps", whole(self.warmup_steps)),
            ("lr_schedule", text(&self.lr_schedule)),
            ("batch_size", whole(self.batch_size)),
            ("micro_batch_size", whole(self.micro_batch_size)),
            ("max_length", whole(self.max_length)),
            ("weight_decay", share(self.weight_decay)),
            ("max_grad_norm", share(self.max_grad_norm)),
            ("validation_size", whole(self.validation_size)),
            ("validate_every", whole(self.validate_every)),
            ("train_on_inputs", flag(self.train_on_inputs)),
            ("rank", whole(self.rank)),
            ("alpha", share(self.alpha)),
            ("dropout", share(self.dropout)),
            ("keep_unrecovered", flag(self.keep_unrecovered)),
        ]
    }
}
