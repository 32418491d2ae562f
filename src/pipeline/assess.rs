//! A job that only scores: the model is read, scored as it is, and described.

use super::{
    Context, Error, Model, Report, Scores,
    budget::{Keep, LayerBudget},
    download, evaluate,
    exams::{Marks, evaluation_report, read_exams, take_exams},
    forecast::{self, Material},
    memory::Demand,
    score_dense, write_report,
};
use crate::{
    eval::Windows,
    job::{ByteCounts, JobSpec, LayerReport, ModelReport, ParameterCounts, RemovedShares, Stage},
};

/// Scores the spec's model. The report has the scores under `after`, and nothing before.
pub(super) fn assess(spec: &JobSpec, context: &Context<'_>) -> Result<Report, Error> {
    let mut notes = Vec::new();
    let (snapshot, mut state) = download(spec, context)?;
    let model = state.timed(Stage::Load, |_| Model::read(snapshot))?;
    let Some(evaluation) = &spec.evaluation else {
        return Err(Error::invalid_spec("evaluation: is null, but nothing else is asked for"));
    };
    let folder = &model.snapshot.folder;
    let (texts, exams) = state.timed(Stage::Evaluate, |state| {
        let texts = evaluate::read_texts(evaluation, &model.config, folder, context, &mut notes)?;
        Ok((texts, read_exams(evaluation, &model.config, folder, state, context)?))
    })?;
    let nothing = Windows { windows: Vec::new(), length: 0 };
    let material =
        Material { config: &model.config, layers: 0, windows: &nothing, texts: &texts, exams: &exams, examples: 0 };
    context.observer.expect(forecast::legs(spec, &material));
    let demand = model.demand(spec, &LayerBudget::Explicit(Vec::new()), Keep::Ratio(1.0), &nothing, &texts);
    let plan = Demand { written: exams.longest_generation(), ..demand }.plan(context.settings.memory_limit)?;
    let mut decoder = state.timed(Stage::Load, |_| model.load(spec, &nothing, &texts, plan.residency, context))?;
    score_dense(&decoder, &texts, &mut state, context)?;
    let marks = take_exams(&mut decoder, &exams, "dense", &mut state, context)?;
    drop(decoder);
    let perplexity = evaluate::perplexity_reports(&texts, &Scores::new(), &state.finished.dense, None);
    let bytes = model.weights.file_bytes()?;
    let report = Report {
        model: ModelReport::from(&model, spec),
        spec: spec.clone(),
        parameters: ParameterCounts { before: model.parameters, after: model.parameters },
        removed: RemovedShares::default(),
        predicted_loss_rise: None,
        checkpoints: Vec::new(),
        bytes: ByteCounts { before: bytes, after: bytes },
        layers: LayerReport { block_influence: Vec::new(), angular_distance: None, redundant: Vec::new() },
        matrices: Vec::new(),
        recovery: None,
        evaluation: Some(evaluation_report(perplexity, &exams, (&Marks::default(), &marks, None))),
        stages: state.stages(),
        peak_rss_bytes: state.finished.peak_rss_bytes,
        residency: plan.residency.as_str().to_owned(),
        seed: spec.calibration.seed,
        device: context.settings.device.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        notes,
    };
    write_report(&report, context)?;
    Ok(report)
}
