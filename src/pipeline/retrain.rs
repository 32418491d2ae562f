//! A job that only trains: a checkpoint, usually one with factors, is trained as it is, scored before and after, and
//! written again.

use super::{
    Context, Error, Model, Report,
    conclude::{Made, conclude},
    download,
    evaluate::read_texts,
    exams::Marks,
    export::Changes,
    forecast::{self, Material},
    influence::Influence,
    memory::Demand,
    recover::Lessons,
    statistics::Needs,
};
use crate::{
    eval::Windows,
    job::{
        JobSpec, Stage,
        spec::{Projection, Recovery, RecoveryTarget},
    },
    model::{Residency, factor_names, module_name},
};

/// Trains the spec's model. The report has the scores of the model as it was under `after`, and nothing before.
pub(super) fn retrain(spec: &JobSpec, recovery: &Recovery, context: &Context<'_>) -> Result<Report, Error> {
    let mut notes = Vec::new();
    let (snapshot, mut state) = download(spec, context)?;
    let model = state.timed(Stage::Load, |_| Model::read(snapshot))?;
    let layers = model.factored_layers(recovery)?;
    let texts = state.timed(Stage::Evaluate, |_| match &spec.evaluation {
        Some(evaluation) => read_texts(evaluation, &model.config, &model.snapshot.folder, context, &mut notes),
        None => Ok(Vec::new()),
    })?;
    let exams = model.exams(spec, &mut state, context)?;
    let lessons = state.timed(Stage::Calibrate, |_| Lessons::read(recovery, &model, context))?;
    let nothing = Windows { windows: Vec::new(), length: 0 };
    let demand = Demand {
        config: &model.config,
        parameters: model.parameters,
        layers: layers.len(),
        projections: &Projection::ALL,
        needs: Needs::NONE,
        kept: 0.0,
        calibration: 0,
        evaluation: texts.iter().map(|text| text.windows.length).max().unwrap_or(0),
        written: exams.longest_generation(),
        recovery: Some(recovery),
    };
    demand.plan(context.settings.memory_limit)?;
    let material = Material {
        config: &model.config,
        layers: layers.len(),
        windows: &nothing,
        texts: &texts,
        exams: &exams,
        examples: lessons.examples(),
    };
    context.observer.expect(forecast::legs(spec, &material));
    let decoder = state.timed(Stage::Load, |_| model.load(spec, &nothing, &texts, Residency::Resident, context))?;
    let made = Made {
        influence: Influence { block_influence: Vec::new(), angular_distance: None, redundant: layers },
        matrices: Vec::new(),
        changes: Changes {
            factors: std::collections::BTreeMap::new(),
            removed: Vec::new(),
            trained: std::collections::BTreeMap::new(),
            tied: model.config.tie_word_embeddings,
        },
        texts,
        exams,
        dense: Marks::default(),
        lessons: Some(lessons),
        notes,
    };
    conclude(decoder, made, (spec, &model), state, context)
}

impl Model {
    /// The layers that hold factors.
    ///
    /// # Errors
    /// `invalid_spec` when there are none although only they are to be trained.
    pub(super) fn factored_layers(&self, recovery: &Recovery) -> Result<Vec<usize>, Error> {
        let factored = |layer: usize, projection: Projection| {
            self.weights.get(&factor_names(&module_name(layer, projection.path())).0).is_some()
        };
        let is_factored = |layer: &usize| Projection::ALL.iter().any(|&projection| factored(*layer, projection));
        let layers: Vec<usize> = (0..self.config.num_layers).filter(is_factored).collect();
        if layers.is_empty() && recovery.target == RecoveryTarget::RedundantLayers {
            return Err(Error::invalid_spec(
                "recovery.target: no layer of the model is factored, so none is redundant: set it to all_layers, or let \
                 grasp compress the model first",
            ));
        }
        Ok(layers)
    }
}
