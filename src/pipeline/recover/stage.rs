//! Recovery as a stage of a job: which layers, what the export learns of it, and the third row of scores.

use super::{Task, outcome::collect, train_and_merge};
use crate::{
    job::{
        JobSpec, RecoveryReport, Stage,
        spec::{Recovery, RecoveryTarget},
    },
    model::Decoder,
    pipeline::{
        Context, Error, Model, Scores,
        compress::{Compressed, install},
        evaluate::{Text, score},
        export::{Changes, written_dtype},
        state::State,
    },
};

/// What a job knows when recovery begins.
pub(in crate::pipeline) struct RecoveryTask<'a> {
    pub(in crate::pipeline) recovery: &'a Recovery,
    pub(in crate::pipeline) spec: &'a JobSpec,
    pub(in crate::pipeline) model: &'a Model,
    /// The layers that were compressed.
    pub(in crate::pipeline) redundant: &'a [usize],
    /// What the export will write; recovery adds what it trained.
    pub(in crate::pipeline) changes: &'a mut Changes,
}

/// What came of it.
pub(in crate::pipeline) struct Recovered {
    pub(in crate::pipeline) report: RecoveryReport,
    pub(in crate::pipeline) scores: Scores,
}

/// Trains the compressed decoder and scores it again; where it is asked for, the checkpoint before is written first.
pub(in crate::pipeline) fn recover(
    decoder: &mut Decoder,
    task: RecoveryTask<'_>,
    matrices: &[Compressed],
    texts: &[Text],
    state: &mut State,
    context: &Context<'_>,
) -> Result<Recovered, Error> {
    let RecoveryTask { recovery, spec, model, redundant, changes } = task;
    // Where only products are written, they have been scored; what is trained is their factors.
    for matrix in matrices {
        install(decoder, matrix, written_dtype(&matrix.triplets.name, &model.weights, &spec.export))?;
    }
    if recovery.keep_unrecovered {
        let folder = context.output.join("unrecovered");
        std::fs::create_dir_all(&folder).map_err(crate::checkpoint::Error::io(&folder))?;
        state.timed(Stage::Export, |_| model.export(changes, &spec.export, &folder, context))?;
    }
    let all: Vec<usize> = (0..decoder.num_layers()).collect();
    let layers = match recovery.target {
        RecoveryTarget::RedundantLayers => redundant,
        RecoveryTarget::AllLayers => &all,
    };
    let task = Task { recovery, layers, folder: &model.snapshot.folder, config: &model.config_json };
    let report = state.timed(Stage::Recover, |state| train_and_merge(decoder, &task, state, context))?;
    collect(decoder, layers, recovery.method, (model, &spec.export), changes)?;
    let mut scores = Scores::new();
    if !texts.is_empty() {
        state.timed(Stage::Evaluate, |_| score(decoder, texts, "recovered", context, &mut scores))?;
    }
    Ok(Recovered { report, scores })
}
