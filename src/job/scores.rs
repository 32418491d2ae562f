//! Figures beside accuracies and the perplexity of windows.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Rolling perplexities on one task, as lm-evaluation-harness takes them; not to be compared with those of windows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RollingReport {
    /// Of the source; null when `compare_dense` is false.
    pub before: Option<RollingScores>,
    /// Of the compressed model, on the weights as exported.
    pub after: RollingScores,
    /// Of the model after recovery; absent without recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<RollingScores>,
    /// Documents scored.
    pub documents: usize,
    /// Tokens in the longest window.
    pub window: usize,
    /// How it was computed, in words.
    pub protocol: String,
}

/// The same log-likelihood per word and per byte of the documents as they were before they were detokenised.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RollingScores {
    /// exp(−log-likelihood / words), words being what white space separates.
    pub word_perplexity: f64,
    /// exp(−log-likelihood / bytes).
    pub byte_perplexity: f64,
    /// −log₂-likelihood / bytes.
    pub bits_per_byte: f64,
}

impl RollingScores {
    /// The scores of documents of so many words and bytes together.
    pub fn of(log_likelihood: f64, words: u64, bytes: u64) -> Self {
        let (per_word, per_byte) = (-log_likelihood / words as f64, -log_likelihood / bytes as f64);
        Self {
            word_perplexity: per_word.exp(),
            byte_perplexity: per_byte.exp(),
            bits_per_byte: per_byte / std::f64::consts::LN_2,
        }
    }
}

/// Scores of what the model wrote, on one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerationReport {
    /// Of the source; null when `compare_dense` is false.
    pub before: Option<GenerationScores>,
    /// Of the compressed model, on the weights as exported.
    pub after: GenerationScores,
    /// Of the model after recovery; absent without recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<GenerationScores>,
    /// Documents asked.
    pub documents: usize,
    /// Tokens of the longest answer there may be.
    pub max_new_tokens: usize,
    /// How they were asked, in words.
    pub protocol: String,
}

/// The task's own metrics by name, each the mean over the documents as a share of 1, and its standard error under the same
/// name with `_stderr`: null for a single document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GenerationScores(IndexMap<String, Option<f64>>);

impl GenerationScores {
    /// Adds a metric.
    pub fn insert(&mut self, metric: &str, mean: f64, stderr: Option<f64>) {
        self.0.insert(metric.to_owned(), Some(mean));
        self.0.insert(stderr_of(metric), stderr);
    }

    /// The mean of a metric.
    pub fn mean(&self, metric: &str) -> Option<f64> {
        self.0.get(metric).copied().flatten()
    }

    /// Every metric with its mean and its standard error.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64, Option<f64>)> {
        self.0.iter().filter_map(|(metric, mean)| {
            let stderr = self.0.get(&stderr_of(metric)).copied()?;
            Some((metric.as_str(), (*mean)?, stderr))
        })
    }
}

fn stderr_of(metric: &str) -> String {
    format!("{metric}_stderr")
}

/// What it takes to run the model, measured on the machine and in the number format of the job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InferenceReport {
    /// Of the source; null when `compare_dense` is false.
    pub before: Option<InferenceFigures>,
    /// Of the compressed model, on the weights as exported.
    pub after: InferenceFigures,
    /// Of the model after recovery; absent without recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<InferenceFigures>,
}

/// One sequence, greedy, with keys and values kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InferenceFigures {
    /// Parameters, a tied head counted once.
    pub parameters: u64,
    /// Bytes of the weights in memory.
    pub weight_bytes: u64,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, read in a second.
    pub prefill_tokens_per_second: f64,
    /// Tokens generated behind the prompt.
    pub generated_tokens: usize,
    /// Of these, in a second.
    pub generated_tokens_per_second: f64,
    /// Highest resident set size of the process meanwhile, in bytes.
    pub peak_memory_bytes: u64,
}
