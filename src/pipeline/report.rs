//! What the job says of itself in the end.

use super::{
    Context, Error, Model, Scores, account,
    compress::Compressed,
    evaluate::{Text, perplexity_reports},
    exams::{Exams, Marks, evaluation_report},
    influence::Influence,
    recover::Recovered,
    state::State,
};
use crate::{
    job::{ByteCounts, CheckpointReport, JobSpec, LayerReport, ModelReport, ParameterCounts, Report},
    model::Residency,
};

/// What the report is made of.
pub(super) struct Findings {
    pub(super) influence: Influence,
    pub(super) matrices: Vec<Compressed>,
    pub(super) texts: Vec<Text>,
    pub(super) exams: Exams,
    pub(super) compressed: Scores,
    /// Before and after.
    pub(super) marks: (Marks, Marks),
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
    let Findings { influence, matrices, texts, exams, compressed, marks, recovered, checkpoints, mut notes, residency } =
        found;
    let recovered_scores = recovered.as_ref().map(|found| &found.scores);
    let perplexity = perplexity_reports(&texts, &state.finished.dense, &compressed, recovered_scores);
    let recovered_marks = recovered.as_ref().map(|found| &found.marks);
    let evaluation = evaluation_report(perplexity, &exams, (&marks.0, &marks.1, recovered_marks));
    let recovery = recovered.map(|found| found.report);
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
        model: ModelReport::from(model, spec),
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
        evaluation: spec.evaluation.is_some().then_some(evaluation),
        stages: state.stages(),
        peak_rss_bytes: state.finished.peak_rss_bytes,
        residency: residency.as_str().to_owned(),
        seed: spec.calibration.seed,
        device: context.settings.device.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        notes,
    })
}

impl ModelReport {
    pub(super) fn from(model: &Model, spec: &JobSpec) -> Self {
        Self {
            source: spec.model.to_string(),
            revision: model.snapshot.revision.clone(),
            architecture: model.config.architecture.clone(),
        }
    }
}
