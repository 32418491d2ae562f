//! How a job ends once its matrices are what they will be: scores, recovery, scores again, and the published folder.

use serde_json::json;

use super::{
    Context, Error, Model, Scores,
    compress::Compressed,
    durable::write_json,
    evaluate::{Text, score},
    exams::{Exams, Marks, take_exams},
    export::{Changes, write_cards},
    influence::Influence,
    recover::{Lessons, RecoveryTask, recover},
    report::{Findings, report},
    state::{State, peak_rss_bytes},
    write_report,
};
use crate::{
    job::{JobSpec, Progress, Report, Stage},
    model::Decoder,
};

/// What a job knows then.
pub(super) struct Made<'a> {
    pub(super) influence: Influence,
    pub(super) matrices: Vec<Compressed>,
    /// What the export will write.
    pub(super) changes: Changes,
    pub(super) texts: Vec<Text>,
    pub(super) exams: Exams,
    /// What the source got in them.
    pub(super) dense: Marks,
    /// What to train on, if anything.
    pub(super) lessons: Option<Lessons<'a>>,
    pub(super) notes: Vec<String>,
}

/// Scores, trains where that is asked for, and publishes.
pub(super) fn conclude(
    mut decoder: Decoder,
    made: Made<'_>,
    (spec, model): (&JobSpec, &Model),
    mut state: State,
    context: &Context<'_>,
) -> Result<Report, Error> {
    let Made { influence, matrices, mut changes, texts, exams, dense, lessons, notes } = made;
    let compressed = score_compressed(&decoder, &texts, &mut state, context)?;
    let after = take_exams(&mut decoder, &exams, "compressed", &mut state, context)?;
    let recovered = match &lessons {
        Some(lessons) => {
            let redundant = &influence.redundant;
            let task = RecoveryTask { lessons, spec, model, redundant, texts: &texts, exams: &exams };
            Some(recover(&mut decoder, &task, &matrices, &mut changes, &mut state, context)?)
        }
        None => None,
    };
    let residency = decoder.residency();
    drop(decoder);
    let checkpoints = state.timed(Stage::Export, |_| model.export(&changes, &spec.export, context.output, context))?;
    let marks = (dense, after);
    let found =
        Findings { influence, matrices, texts, exams, compressed, marks, recovered, checkpoints, notes, residency };
    publish(spec, model, found, &mut state, context)
}

/// Scores the model on its weights as they will be exported.
fn score_compressed(
    decoder: &Decoder,
    texts: &[Text],
    state: &mut State,
    context: &Context<'_>,
) -> Result<Scores, Error> {
    let mut scores = state.finished.compressed.clone();
    if texts.iter().any(|text| !scores.contains_key(&text.name)) {
        state.timed(Stage::Evaluate, |_| score(decoder, texts, "compressed", context, &mut scores))?;
        state.finished.compressed.clone_from(&scores);
        state.save()?;
    }
    Ok(scores)
}

/// Writes the report, the singular values and the checksums: the folder is then complete.
fn publish(
    spec: &JobSpec,
    model: &Model,
    found: Findings,
    state: &mut State,
    context: &Context<'_>,
) -> Result<Report, Error> {
    context.progress(Progress::new(Stage::Publish, 0, 1))?;
    state.finished.peak_rss_bytes = state.finished.peak_rss_bytes.max(peak_rss_bytes());
    let triplets: Vec<_> = found.matrices.iter().map(|matrix| &matrix.triplets).collect();
    write_json(&context.output.join("singular_values.json"), &json!({ "matrices": triplets }))?;
    let report = report(spec, model, found, state, context)?;
    write_cards(&report, &model.snapshot.folder, context.output)?;
    write_report(&report, context)?;
    Ok(report)
}
