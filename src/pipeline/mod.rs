//! The method, stage by stage. Synchronous: cancellation and progress are values in [`Context`].

mod account;
mod assess;
mod budget;
mod calibrate;
mod compress;
mod conclude;
mod context;
mod cost;
mod durable;
mod error;
mod evaluate;
mod exams;
mod export;
mod factorize;
mod forecast;
mod gradients;
mod hidden;
mod influence;
mod memory;
mod piece;
mod plan;
mod recover;
mod refine;
mod report;
mod retrain;
mod select;
mod state;
mod statistics;

use std::{fs, path::Path, sync::Arc};

use serde_json::Value;

pub use context::{Context, Observer, Settings};
pub use cost::{StageCost, cost};
pub use error::Error;
pub use forecast::Leg;
pub(crate) use memory::machine_bytes;
pub use plan::plan;

use self::{
    budget::{LayerBudget, Sizes},
    compress::{Compressed, Task, by_module, compress},
    conclude::{Made, conclude},
    evaluate::{Text, read_texts, score},
    exams::{Exams, Marks, read_exams, take_exams},
    export::{Changes, Source, count_parameters, install_as_exported},
    factorize::Rule,
    forecast::{Forecast, Material},
    influence::{Influence, Wanted},
    memory::Demand,
    recover::Lessons,
    state::State,
    statistics::Needs,
};
use crate::{
    checkpoint::{self, Snapshot, Weights},
    eval::{Perplexity, Windows},
    job::{
        CheckpointReport, JobSpec, Progress, Report, Stage,
        spec::{Export, Kind, Method, Schedule},
    },
    model::{Config, Decoder, Place, Residency, open_device},
};

type Scores = indexmap::IndexMap<String, Perplexity>;

/// Runs a whole job and fills `context.output` with the finished checkpoint folder.
///
/// What an earlier attempt finished and left in `context.work` is not done again.
///
/// # Errors
/// [`Error`] says what is wrong in words for the user; [`Error::failure`] decides whether to try again.
pub fn run(spec: &JobSpec, context: &Context<'_>) -> Result<Report, Error> {
    let forecast = Forecast::new(context.observer);
    let context = &Context { observer: &forecast, ..*context };
    match (spec.kind, &spec.recovery) {
        (Kind::Compress, _) => run_compression(spec, context),
        (Kind::Recover, Some(recovery)) => retrain::retrain(spec, recovery, context),
        (Kind::Recover, None) => Err(Error::invalid_spec("recovery: is null, and so is grasp: there is nothing to do")),
        (Kind::Evaluate, _) => assess::assess(spec, context),
    }
}

fn run_compression(spec: &JobSpec, context: &Context<'_>) -> Result<Report, Error> {
    let mut notes = Vec::new();
    let (snapshot, mut state) = download(spec, context)?;
    let model = state.timed(Stage::Load, |_| Model::read(snapshot))?;
    let (budget, keep) = model.budget(spec)?;
    let (windows, texts) = state.timed(Stage::Calibrate, |_| read_text(spec, &model, context, &mut notes))?;
    let exams = model.exams(spec, &mut state, context)?;
    let lessons = model.lessons(spec, &mut state, context)?;
    let material = Material {
        config: &model.config,
        layers: budget.count(),
        windows: &windows,
        texts: &texts,
        exams: &exams,
        examples: lessons.as_ref().map_or(0, Lessons::examples),
    };
    context.observer.expect(forecast::legs(spec, &material));
    let demand = model.demand(spec, &budget, keep, &windows, &texts);
    let plan = Demand { written: exams.longest_generation(), ..demand }.plan(context.settings.memory_limit)?;
    let mut decoder = state.timed(Stage::Load, |_| model.load(spec, &windows, &texts, plan.residency, context))?;
    let mut influence = measure_influence(spec, &decoder, &windows, &budget, &mut state, context)?;
    let mut dense = Marks::default();
    if spec.evaluation.as_ref().is_some_and(|evaluation| evaluation.compare_dense) {
        score_dense(&decoder, &texts, &mut state, context)?;
        dense = take_exams(&mut decoder, &exams, "dense", &mut state, context)?;
        if let Some(lessons) = &lessons {
            lessons.held_out(&decoder, "dense", &mut state, context)?;
        }
    }
    let matrices = match spec.grasp.method {
        Method::Grasp => {
            let grasp = &spec.grasp;
            let rule = Rule { keep, score: grasp.score, basis: grasp.basis, split: grasp.sigma_split };
            let task = Task {
                layers: &influence.redundant,
                projections: &spec.grasp.projections,
                schedule: spec.grasp.schedule,
                refine: spec.grasp.refine,
                rule,
                windows: &windows,
                memory: plan.decompositions,
            };
            let matrices = compress(&mut decoder, &task, &mut state, context)?;
            influence = state.finished.influence.clone().unwrap_or(influence);
            matrices
        }
        Method::Remove => {
            decoder.remove(&influence.redundant);
            Vec::new()
        }
    };
    install_as_exported(&mut decoder, &matrices, &model.weights, &spec.export)?;
    let changes = model.changes(spec, &influence, &matrices);
    let made = Made { influence, matrices, changes, texts, exams, dense, lessons, notes };
    conclude(decoder, made, (spec, &model), state, context)
}

fn download(spec: &JobSpec, context: &Context<'_>) -> Result<(Snapshot, State), Error> {
    context.progress(Progress::new(Stage::Download, 0, 1))?;
    let start = std::time::Instant::now();
    let Settings { models_dir, published_dir, hub, .. } = context.settings;
    let snapshot = checkpoint::resolve(&spec.model, models_dir, published_dir, hub, &mut |done, total, file| {
        let progress = Progress { part: Some(file.to_owned()), ..Progress::new(Stage::Download, done, total) };
        context.progress(progress).is_ok()
    })?;
    let mut state = State::open(context.work, spec, snapshot.revision.as_deref())?;
    *state.finished.seconds.entry(Stage::Download).or_default() += start.elapsed().as_secs_f64();
    Ok((snapshot, state))
}

/// A model's files, and what they say of it.
struct Model {
    snapshot: Snapshot,
    config: Config,
    config_json: Value,
    weights: Arc<Weights>,
    parameters: u64,
}

impl Model {
    fn read(snapshot: Snapshot) -> Result<Self, Error> {
        let (config, config_json) = Config::read(&snapshot.folder)?;
        let weights = Arc::new(Weights::open(&snapshot.folder)?);
        let parameters = count_parameters(&weights, config.tie_word_embeddings);
        Ok(Self { snapshot, config, config_json, weights, parameters })
    }

    fn parameters_of_layer(&self) -> u64 {
        let first = self.weights.iter().filter(|(name, _)| name.starts_with("model.layers.0."));
        first.map(|(_, entry)| entry.elements()).sum()
    }

    fn budget(&self, spec: &JobSpec) -> Result<(LayerBudget, budget::Keep), Error> {
        let layer = self.parameters_of_layer();
        let sizes =
            Sizes { config: &self.config, parameters: self.parameters, layer, projections: &spec.grasp.projections };
        budget::resolve(&spec.grasp, &sizes)
    }

    fn exams(&self, spec: &JobSpec, state: &mut State, context: &Context<'_>) -> Result<Exams, Error> {
        match &spec.evaluation {
            Some(evaluation) if !evaluation.has_tasks() => Ok(Exams::without_tasks(evaluation)),
            Some(evaluation) => state.timed(Stage::Evaluate, |state| {
                read_exams(evaluation, &self.config, &self.snapshot.folder, state, context)
            }),
            None => Ok(Exams::default()),
        }
    }

    /// What the job trains on, read before anything else is done, so that nothing is done in vain.
    fn lessons<'a>(
        &self,
        spec: &'a JobSpec,
        state: &mut State,
        context: &Context<'_>,
    ) -> Result<Option<Lessons<'a>>, Error> {
        let read = |recovery| state.timed(Stage::Calibrate, |_| Lessons::read(recovery, self, context));
        spec.recovery.as_ref().map(read).transpose()
    }

    fn demand<'a>(
        &'a self,
        spec: &'a JobSpec,
        budget: &LayerBudget,
        keep: budget::Keep,
        windows: &Windows,
        texts: &[Text],
    ) -> Demand<'a> {
        Demand {
            config: &self.config,
            parameters: self.parameters,
            layers: if spec.grasp.method == Method::Remove { 0 } else { budget.count() },
            projections: &spec.grasp.projections,
            kept: match keep {
                budget::Keep::Ratio(ratio) => ratio,
                budget::Keep::Threshold(_) | budget::Keep::Budget(_) => 1.0,
            },
            needs: Needs::of(spec.grasp.basis, spec.grasp.score),
            calibration: windows.length,
            evaluation: texts.iter().map(|text| text.windows.length).max().unwrap_or(0),
            written: None,
            recovery: spec.recovery.as_ref(),
        }
    }

    fn load(
        &self,
        spec: &JobSpec,
        windows: &Windows,
        texts: &[Text],
        residency: Residency,
        context: &Context<'_>,
    ) -> Result<Decoder, Error> {
        let trained = spec.recovery.as_ref().map_or(0, |recovery| recovery.max_length);
        let longest = trained.min(self.config.max_position_embeddings).max(windows.length);
        let longest = texts.iter().map(|text| text.windows.length).fold(longest, usize::max);
        if windows.length > self.config.max_position_embeddings {
            return Err(Error::invalid_spec(format!(
                "calibration.sequence_length: {} is longer than the model's context of {}",
                spec.calibration.sequence_length, self.config.max_position_embeddings
            )));
        }
        let device = open_device(&context.settings.device)?;
        let place = Place { device: &device, residency, scratch: context.work };
        let decoder = Decoder::load(&self.weights, &self.config, longest, place, &mut |done, total| {
            context
                .progress(Progress::new(Stage::Load, done as u64, total as u64))
                .map_err(|_| checkpoint::Error::Cancelled)
        })?;
        Ok(decoder)
    }

    fn changes(&self, spec: &JobSpec, influence: &Influence, matrices: &[Compressed]) -> Changes {
        let removed = match spec.grasp.method {
            Method::Grasp => Vec::new(),
            Method::Remove => influence.redundant.clone(),
        };
        Changes {
            factors: by_module(matrices),
            removed,
            trained: std::collections::BTreeMap::new(),
            tied: self.config.tie_word_embeddings,
        }
    }

    fn export(
        &self,
        changes: &Changes,
        export: &Export,
        output: &Path,
        context: &Context<'_>,
    ) -> Result<Vec<CheckpointReport>, Error> {
        let source = Source {
            folder: &self.snapshot.folder,
            weights: &self.weights,
            config: &self.config_json,
            architecture: &self.config.architecture,
        };
        export::write(&source, changes, export, output, &mut |done, total| {
            context.progress(Progress::new(Stage::Export, done, total))
        })
    }
}

fn read_text(
    spec: &JobSpec,
    model: &Model,
    context: &Context<'_>,
    notes: &mut Vec<String>,
) -> Result<(Windows, Vec<Text>), Error> {
    let folder = &model.snapshot.folder;
    let windows = calibrate::read(&spec.calibration, folder, model.config.vocab_size, context, notes)?;
    let texts = match &spec.evaluation {
        Some(evaluation) => read_texts(evaluation, &model.config, &model.snapshot.folder, context, notes)?,
        None => Vec::new(),
    };
    Ok((windows, texts))
}

fn measure_influence(
    spec: &JobSpec,
    decoder: &Decoder,
    windows: &Windows,
    budget: &LayerBudget,
    state: &mut State,
    context: &Context<'_>,
) -> Result<Influence, Error> {
    if let Some(known) = &state.finished.influence {
        return Ok(known.clone());
    }
    if let LayerBudget::Explicit(layers) = budget
        && seen_on_the_way(spec, layers)
    {
        let influence = Influence { block_influence: Vec::new(), angular_distance: None, redundant: layers.clone() };
        state.finished.influence = Some(influence.clone());
        return Ok(influence);
    }
    let wanted = match budget {
        LayerBudget::Count(count, metric) => Wanted::Count(*count, *metric),
        LayerBudget::Explicit(layers) => Wanted::Explicit(layers),
    };
    let influence = state.timed(Stage::Influence, |_| influence::measure(decoder, windows, &wanted, context))?;
    state.finished.influence = Some(influence.clone());
    state.step(context)?;
    Ok(influence)
}

/// Whether the pass for the gradients sees all layers, so that one for the influence, which decides nothing, is spared.
fn seen_on_the_way(spec: &JobSpec, layers: &[usize]) -> bool {
    let grasp = &spec.grasp;
    let passes = grasp.method == Method::Grasp && Needs::of(grasp.basis, grasp.score).anything();
    passes && grasp.schedule == Schedule::OneShot && layers.first() == Some(&0)
}

fn score_dense(decoder: &Decoder, texts: &[Text], state: &mut State, context: &Context<'_>) -> Result<(), Error> {
    let mut known = state.finished.dense.clone();
    if texts.iter().all(|text| known.contains_key(&text.name)) {
        return Ok(());
    }
    state.timed(Stage::Evaluate, |_| score(decoder, texts, "dense", context, &mut known))?;
    state.finished.dense = known;
    state.step(context)
}

fn write_report(report: &Report, context: &Context<'_>) -> Result<(), Error> {
    let path = context.output.join("report.json");
    let text = serde_json::to_string_pretty(report).map_err(|error| Error::internal(error.to_string()))?;
    fs::write(&path, text + "\n").map_err(checkpoint::Error::io(&path))?;
    checkpoint::write_checksums(context.output)?;
    context.progress(Progress::new(Stage::Publish, 1, 1))
}
