//! Stage 5: perplexity on whole texts.

use indexmap::IndexMap;

use super::{Context, Error};
use crate::{
    checkpoint,
    eval::{self, Perplexity, Tokens, Windows},
    job::{
        PerplexityReport, Progress, Stage,
        spec::{Evaluation, Selection},
    },
    model::{Config, Decoder},
};

/// The windows of one data set.
pub(super) struct Text {
    pub(super) name: String,
    pub(super) windows: Windows,
    /// What the data set's part is called: test, or validation where there is no test.
    pub(super) split: String,
}

/// Reads and cuts the texts that a job is scored on; `notes` gets what differs from what was asked.
pub(super) fn read_texts(
    evaluation: &Evaluation,
    config: &Config,
    folder: &std::path::Path,
    context: &Context<'_>,
    notes: &mut Vec<String>,
) -> Result<Vec<Text>, Error> {
    let window = evaluation.window.min(config.max_position_embeddings);
    if window < evaluation.window {
        notes.push(format!(
            "evaluation.window is {window} instead of {}: the model's max_position_embeddings",
            evaluation.window
        ));
    }
    let mut texts = Vec::new();
    for dataset in &evaluation.perplexity {
        let (text, split) = eval::load_evaluation_text(dataset, &context.settings.datasets_dir, &context.settings.hub)?;
        let tokens = Tokens::encode(folder, &text, config.vocab_size)?;
        let windows = tokens.cut(evaluation.limit.unwrap_or(usize::MAX), window, Selection::First, 0);
        if windows.windows.is_empty() {
            return Err(checkpoint::Error::InvalidDataset(format!(
                "{dataset} ({split}) has {} tokens: at least two are needed to score",
                tokens.len()
            ))
            .into());
        }
        if windows.length < window {
            notes.push(format!("{dataset} has only {} tokens: it is scored as one window", windows.length));
        }
        texts.push(Text { name: dataset.to_string(), windows, split });
    }
    Ok(texts)
}

/// Scores the decoder on every text; `part` says in the progress which model it is.
pub(super) fn score(
    decoder: &Decoder,
    texts: &[Text],
    part: &str,
    context: &Context<'_>,
    known: &mut IndexMap<String, Perplexity>,
) -> Result<(), Error> {
    for text in texts {
        if known.contains_key(&text.name) {
            continue;
        }
        let mut cancelled = false;
        let perplexity = eval::measure(decoder, &text.windows, &mut |done, total| {
            let progress = Progress {
                part: Some(format!("{part}, {}", text.name)),
                ..Progress::new(Stage::Evaluate, done as u64, total as u64)
            };
            context.progress(progress).map_err(|_| {
                cancelled = true;
                checkpoint::Error::Cancelled
            })
        });
        let perplexity = if cancelled { return Err(Error::Cancelled) } else { perplexity? };
        if !perplexity.value().is_finite() {
            return Err(Error::numerical(format!("the perplexity of the {part} model on {} is not finite", text.name)));
        }
        known.insert(text.name.clone(), perplexity);
    }
    Ok(())
}

/// The report's rows, in the order of the texts.
pub(super) fn perplexity_reports(
    texts: &[Text],
    before: &IndexMap<String, Perplexity>,
    after: &IndexMap<String, Perplexity>,
    recovered: Option<&IndexMap<String, Perplexity>>,
) -> IndexMap<String, PerplexityReport> {
    let row = |text: &Text| {
        let score = after.get(&text.name).copied().unwrap_or_default();
        let dense = before.get(&text.name).map(Perplexity::value);
        let report = PerplexityReport {
            before: dense,
            loss_rise: dense.map(|dense| (score.value() / dense).ln()),
            after: score.value(),
            recovered: recovered.and_then(|scores| scores.get(&text.name)).map(Perplexity::value),
            tokens: score.tokens,
            window: text.windows.length,
            protocol: protocol(text),
        };
        (text.name.clone(), report)
    };
    texts.iter().map(row).collect()
}

/// How a text was scored, in words.
fn protocol(text: &Text) -> String {
    format!(
        "{} split tokenised once as a whole; {} non-overlapping windows of {} tokens; exp(sum of -log p / tokens scored), the first token of a window is not scored",
        text.split,
        text.windows.windows.len(),
        text.windows.length
    )
}
