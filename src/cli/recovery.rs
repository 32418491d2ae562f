//! The flags of `graspd compress` that ask for recovery.

#![expect(clippy::doc_markdown, reason = "the comments of arguments are the help text")]

use clap::Args;
use serde_json::{Value, json};

/// Recovery on the command line; any of these flags asks for it.
#[derive(Args, Debug, Default)]
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
    /// Times through the training data
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// At most so many optimiser steps
    #[arg(long, value_name = "N")]
    max_steps: Option<u64>,
    /// Learning rate after the warm-up
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Publish the checkpoint before recovery too
    #[arg(long)]
    keep_unrecovered: bool,
}

impl RecoveryArguments {
    /// The fields of `recovery` that the flags give.
    pub(super) fn fields(&self) -> [(&'static str, Option<Value>); 7] {
        let text = |value: &Option<String>| value.as_ref().map(|value| json!(value));
        let number = |value: Option<u64>| value.map(|value| json!(value));
        [
            ("method", text(&self.recovery)),
            ("dataset", text(&self.recovery_dataset)),
            ("target", text(&self.recovery_target)),
            ("epochs", number(self.epochs)),
            ("max_steps", number(self.max_steps)),
            ("learning_rate", self.learning_rate.map(super::compress::number)),
            ("keep_unrecovered", self.keep_unrecovered.then(|| json!(true))),
        ]
    }
}
