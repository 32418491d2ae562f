//! Recovery as a stage of a job: which layers, what the export learns of it, and the third row of scores.

use candle_core::DType;
use safetensors::Dtype;

use super::{Lessons, outcome::collect, report, train_and_merge};
use crate::{
    job::{
        HeldOutReport, JobSpec, RecoveryReport, Stage,
        spec::{ExportType, RecoveryTarget},
    },
    model::Decoder,
    pipeline::{
        Context, Error, Model, Scores,
        compress::{Compressed, install},
        evaluate::{Text, score},
        exams::{Exams, Marks, take_exams},
        export::{Changes, written_dtype},
        state::State,
    },
};

/// What a job knows when recovery begins.
pub(in crate::pipeline) struct RecoveryTask<'a> {
    pub(in crate::pipeline) lessons: &'a Lessons<'a>,
    pub(in crate::pipeline) spec: &'a JobSpec,
    pub(in crate::pipeline) model: &'a Model,
    /// The layers that were compressed.
    pub(in crate::pipeline) redundant: &'a [usize],
    /// What the model is scored on afterwards.
    pub(in crate::pipeline) texts: &'a [Text],
    pub(in crate::pipeline) exams: &'a Exams,
}

/// What came of it.
pub(in crate::pipeline) struct Recovered {
    pub(in crate::pipeline) report: RecoveryReport,
    pub(in crate::pipeline) scores: Scores,
    pub(in crate::pipeline) marks: Marks,
}

/// Trains the compressed decoder and scores it again; where it is asked for, the checkpoint before is written first.
/// `changes` is what the export will write, and learns what was trained.
pub(in crate::pipeline) fn recover(
    decoder: &mut Decoder,
    task: &RecoveryTask<'_>,
    matrices: &[Compressed],
    changes: &mut Changes,
    state: &mut State,
    context: &Context<'_>,
) -> Result<Recovered, Error> {
    let RecoveryTask { lessons, spec, model, redundant, texts, exams } = *task;
    let recovery = lessons.recovery;
    let after = lessons.held_out(decoder, "compressed", state, context)?;
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
    let dtype = training_dtype(decoder, model, spec.export.dtype);
    let course =
        state.timed(Stage::Recover, |state| train_and_merge(decoder, dtype, lessons, layers, state, context))?;
    collect(decoder, layers, recovery.method, (model, &spec.export), changes)?;
    let mut scores = Scores::new();
    if !texts.is_empty() {
        state.timed(Stage::Evaluate, |_| score(decoder, texts, "recovered", context, &mut scores))?;
    }
    let marks = take_exams(decoder, exams, "recovered", state, context)?;
    let held_out = after.zip(lessons.held_out(decoder, "recovered", state, context)?).map(|(after, recovered)| {
        let before = state.finished.held_out.get("dense").copied();
        HeldOutReport { before, after, recovered, tokens: lessons.held_out_tokens() }
    });
    Ok(Recovered { report: report(lessons, layers, course, held_out), scores, marks })
}

/// What training computes in: bf16 on a GPU where checkpoint and export are in bf16 throughout, since what does not train then
/// loses nothing and what trains has master copies in f32. Else f32.
fn training_dtype(decoder: &Decoder, model: &Model, exported: Option<ExportType>) -> DType {
    let narrow = model.weights.iter().all(|(_, entry)| entry.dtype == Dtype::BF16)
        && exported.is_none_or(|dtype| dtype == ExportType::Bf16);
    if narrow && !decoder.device.is_cpu() { DType::BF16 } else { DType::F32 }
}
