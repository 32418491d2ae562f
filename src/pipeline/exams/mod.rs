//! Stage 5: tasks, and what it takes to generate. What finished batches gave lies in the work folder, and a later attempt goes on behind them.

mod inference;
mod outcome;
mod sheet;

use std::path::Path;

use indexmap::IndexMap;

pub(super) use self::outcome::evaluation_report;
use self::sheet::Sheet;
use super::{Context, Error, state::State};
use crate::{
    checkpoint,
    eval::{self, Asking, Document, Encoder, Exam, Rolling},
    job::{InferenceFigures, Progress, RollingScores, Stage, TaskScores, spec::Evaluation},
    model::{Config, Decoder},
};

/// The tasks that a job is scored on, read and encoded.
#[derive(Default)]
pub(super) struct Exams {
    choices: Vec<Exam>,
    rolling: Vec<Rolling>,
    /// Whether the model's speed is measured too.
    inference: bool,
}

impl Exams {
    /// What is measured beside tasks.
    pub(super) fn without_tasks(evaluation: &Evaluation) -> Self {
        Self { inference: evaluation.inference, ..Self::default() }
    }

    /// Every task with what is asked in it, in the order it is taken.
    pub(super) fn tasks(&self) -> impl Iterator<Item = (&'static str, &[Document])> {
        let choices = self.choices.iter().map(|exam| (exam.task.as_str(), exam.documents.as_slice()));
        choices.chain(self.rolling.iter().map(|rolling| (rolling.task.as_str(), rolling.windows.as_slice())))
    }
}

/// What a model got in each of them.
#[derive(Default)]
pub(super) struct Marks {
    choices: IndexMap<String, TaskScores>,
    rolling: IndexMap<String, RollingScores>,
    inference: Option<InferenceFigures>,
}

/// Reads and encodes the tasks that a job is scored on.
pub(super) fn read_exams(
    evaluation: &Evaluation,
    config: &Config,
    folder: &Path,
    context: &Context<'_>,
) -> Result<Exams, Error> {
    let total = evaluation.tasks.len() + evaluation.rolling.len();
    let mut exams = Exams::without_tasks(evaluation);
    if total == 0 {
        return Ok(exams);
    }
    let encoder = Encoder::open(folder, config.vocab_size)?;
    let asking = Asking {
        limit: evaluation.limit,
        num_fewshot: evaluation.num_fewshot,
        longest: config.max_position_embeddings,
    };
    let (datasets_dir, hub) = (&context.settings.datasets_dir, &context.settings.hub);
    let progress = |done: usize, task: &str| {
        let progress = Progress::new(Stage::Evaluate, done as u64, total as u64);
        context.progress(Progress { part: Some(format!("reading {task}")), ..progress })
    };
    for &task in &evaluation.tasks {
        progress(exams.choices.len(), task.as_str())?;
        exams.choices.push(Exam::read(task, asking, &encoder, datasets_dir, hub)?);
    }
    for &task in &evaluation.rolling {
        progress(exams.choices.len() + exams.rolling.len(), task.as_str())?;
        exams.rolling.push(Rolling::read(task, asking, &encoder, datasets_dir, hub)?);
    }
    Ok(exams)
}

/// Asks the decoder every question; `part` says which model it is.
pub(super) fn take_exams(
    decoder: &mut Decoder,
    exams: &Exams,
    part: &str,
    state: &mut State,
    context: &Context<'_>,
) -> Result<Marks, Error> {
    let all = exams.tasks().flat_map(|(_, documents)| documents);
    decoder.reach(all.map(Document::longest).max().unwrap_or(0))?;
    let mut marks = Marks::default();
    let mut ask = |task: &str, documents: &[Document]| {
        state.timed(Stage::Evaluate, |state| take(decoder, (task, documents), part, state, context))
    };
    for exam in &exams.choices {
        let answers = ask(exam.task.as_str(), &exam.documents)?;
        marks.choices.insert(exam.task.to_string(), exam.scores(&answers));
    }
    for rolling in &exams.rolling {
        let answers = ask(rolling.task.as_str(), &rolling.windows)?;
        marks.rolling.insert(rolling.task.to_string(), rolling.scores(&answers));
    }
    if exams.inference {
        marks.inference = inference::measure(decoder, part, state, context)?;
    }
    Ok(marks)
}

/// The log-likelihoods of every document's choices.
fn take(
    decoder: &Decoder,
    (task, documents): (&str, &[Document]),
    part: &str,
    state: &State,
    context: &Context<'_>,
) -> Result<Vec<Vec<f64>>, Error> {
    let path = state.path(&format!("{part}-{task}.jsonl"));
    let (mut sheet, mut answers) = Sheet::open(path, &state.finished.fingerprint)?;
    let total = documents.len();
    answers.truncate(total);
    while answers.len() < total {
        let mut progress = Progress::new(Stage::Evaluate, answers.len() as u64, total as u64);
        progress.part = Some(format!("{part}, {task}"));
        let batch = eval::first_batch(&documents[answers.len()..]);
        let found = eval::log_likelihoods(decoder, batch, &mut || {
            context.progress(progress.clone()).map_err(|_| checkpoint::Error::Cancelled)
        })?;
        if found.iter().flatten().any(|score| !score.is_finite()) {
            return Err(Error::numerical(format!("a log-likelihood of the {part} model on {task} is not finite")));
        }
        sheet.write(&found)?;
        answers.extend(found);
        context.observer.step_finished();
    }
    Ok(answers)
}
