//! What the job says of itself in the end.

use super::{
    Context, Error, Model, Scores, account,
    compress::Compressed,
    evaluate::{self, Text},
    influence::Influence,
    recover::Recovered,
    state::State,
};
use crate::{
    eval::Perplexity,
    job::{
        ByteCounts, CheckpointReport, EvaluationReport, JobSpec, LayerReport, ModelReport, ParameterCounts,
        PerplexityReport, Report,
    },
    model::Residency,
};

/// What the report is made of.
pub(super) struct Findings {
    pub(super) influence: Influence,
    pub(super) matrices: Vec<Compressed>,
    pub(super) texts: Vec<Text>,
    pub(super) compressed: Scores,
    pub(super) recovered: Option<Recovered>,
    pub(super) checkpoints: Vec<CheckpointReport>,
    pub(super) notes: Vec<String>,
    pub(super) residency: Residency,
}

/// Puts everything together.
pub(super) fn report(
    spec: &JobSpec,
    model: &Model,
    found: Findings,
    state: &State,
    context: &Context<'_>,
) -> Result<Report, Error> {
    let Findings { influence, matrices, texts, compressed, recovered, checkpoints, mut notes, residency } = found;
    let (recovery, recovered) = recovered.map_or((None, None), |found| (Some(found.report), Some(found.scores)));
    // The factored one where there are two.
    let first = checkpoints.first().ok_or_else(|| Error::internal("no checkpoint was written"))?;
    let (parameters, bytes) = (first.parameters, first.bytes);
    let dense = matrices.iter().filter(|matrix| matrix.factors.is_none()).count();
    if dense > 0 {
        notes.push(format!("{dense} matrices stay dense: their factors would hold more numbers"));
    }
    let matrices = account::matrices(&matrices, model, spec);
    Ok(Report {
        removed: account::removed(&matrices, &influence.redundant, parameters, model, spec),
        predicted_loss_rise: account::predicted_loss_rise(&matrices),
        model: ModelReport {
            source: spec.model.to_string(),
            revision: model.snapshot.revision.clone(),
            architecture: model.config.architecture.clone(),
        },
        spec: spec.clone(),
        parameters: ParameterCounts { before: model.parameters, after: parameters },
        bytes: ByteCounts { before: model.weights.file_bytes()?, after: bytes },
        checkpoints,
        layers: LayerReport {
            block_influence: influence.block_influence,
            angular_distance: influence.angular_distance,
            redundant: influence.redundant,
        },
        matrices,
        recovery,
        evaluation: spec
            .evaluation
            .as_ref()
            .map(|_| evaluation_report(&texts, &state.finished.dense, &compressed, recovered.as_ref())),
        stages: state.stages(),
        peak_rss_bytes: state.finished.peak_rss_bytes,
        residency: residency.as_str().to_owned(),
        seed: spec.calibration.seed,
        device: context.settings.device.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        notes,
    })
}

fn evaluation_report(texts: &[Text], before: &Scores, after: &Scores, recovered: Option<&Scores>) -> EvaluationReport {
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
            protocol: evaluate::protocol(text),
        };
        (text.name.clone(), report)
    };
    EvaluationReport { perplexity: texts.iter().map(row).collect() }
}
