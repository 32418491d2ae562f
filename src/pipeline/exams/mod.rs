//! Stage 5: tasks, and what it takes to generate. What finished batches gave lies in the work folder, and a later attempt goes on behind them.

mod inference;
mod outcome;
mod sheet;

use std::{iter::Peekable, path::Path};

use indexmap::IndexMap;
use rayon::prelude::*;

pub(super) use self::outcome::evaluation_report;
use self::sheet::Sheet;
use super::{Context, Error, state::State};
use crate::{
    checkpoint,
    eval::{self, Asking, Document, Documents, Encoder, Exam, Rolling, Tally},
    job::{InferenceFigures, Progress, RollingScores, Stage, TaskScores, spec::Evaluation},
    model::{Config, Decoder},
};

/// Batches that go through the model at once: what one of them does on a single core leaves the others to the next.
const BATCHES_AT_ONCE: usize = 2;

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
    pub(super) fn tasks(&self) -> impl Iterator<Item = (&'static str, &Documents)> {
        let choices = self.choices.iter().map(|exam| (exam.task.as_str(), &exam.documents));
        choices.chain(self.rolling.iter().map(|rolling| (rolling.task.as_str(), &rolling.windows)))
    }
}

/// What a model got in each of them.
#[derive(Default)]
pub(super) struct Marks {
    choices: IndexMap<String, TaskScores>,
    rolling: IndexMap<String, RollingScores>,
    inference: Option<InferenceFigures>,
}

/// Reads and encodes the tasks that a job is scored on; the tokens lie in the work folder.
pub(super) fn read_exams(
    evaluation: &Evaluation,
    config: &Config,
    folder: &Path,
    state: &State,
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
    let sources = (context.settings.datasets_dir.as_path(), &context.settings.hub);
    let place = |task: &str| state.path(&format!("documents-{task}.jsonl"));
    let progress = |done: usize, task: &str| {
        let progress = Progress::new(Stage::Evaluate, done as u64, total as u64);
        context.progress(Progress { part: Some(format!("reading {task}")), ..progress })
    };
    for &task in &evaluation.tasks {
        progress(exams.choices.len(), task.as_str())?;
        exams.choices.push(Exam::read(task, asking, &encoder, sources, &place(task.as_str()))?);
    }
    for &task in &evaluation.rolling {
        progress(exams.choices.len() + exams.rolling.len(), task.as_str())?;
        exams.rolling.push(Rolling::read(task, asking, &encoder, sources, &place(task.as_str()))?);
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
    decoder.reach(exams.tasks().map(|(_, documents)| documents.longest).max().unwrap_or(0))?;
    let mut marks = Marks::default();
    let mut ask = |task: (&str, &Documents), mark: Mark<'_>| {
        state.timed(Stage::Evaluate, |state| take(decoder, task, part, (state, context), mark))
    };
    for exam in &exams.choices {
        let mut tally = Tally::default();
        ask((exam.task.as_str(), &exam.documents), &mut |document, answers| tally.add(document, answers))?;
        marks.choices.insert(exam.task.to_string(), tally.scores(exam.task));
    }
    for rolling in &exams.rolling {
        let mut sum = 0.0;
        ask((rolling.task.as_str(), &rolling.windows), &mut |_, answers| sum += answers.iter().sum::<f64>())?;
        marks.rolling.insert(rolling.task.to_string(), rolling.scores(sum));
    }
    if exams.inference {
        marks.inference = inference::measure(decoder, part, state, context)?;
    }
    Ok(marks)
}

/// Gets every document with the log-likelihoods of its choices.
type Mark<'a> = &'a mut dyn FnMut(&Document, &[f64]);

/// Asks the decoder what is in `documents`, behind what an earlier attempt asked.
fn take(
    decoder: &Decoder,
    (task, documents): (&str, &Documents),
    part: &str,
    (state, context): (&State, &Context<'_>),
    mark: Mark<'_>,
) -> Result<(), Error> {
    let path = state.path(&format!("{part}-{task}.jsonl"));
    let (mut sheet, answers) = Sheet::open(path, &state.finished.fingerprint)?;
    let mut left = documents.read()?.peekable();
    let mut done = 0;
    for answers in answers {
        let Some(document) = left.next() else { break };
        mark(&document?, &answers?);
        done += 1;
    }
    loop {
        // A device of its own is one queue.
        let batches = next_batches(&mut left, if decoder.device.is_cpu() { BATCHES_AT_ONCE } else { 1 })?;
        if batches.is_empty() {
            return Ok(());
        }
        let mut progress = Progress::new(Stage::Evaluate, done, documents.count as u64);
        progress.part = Some(format!("{part}, {task}"));
        let ask = |batch: &Vec<Document>| {
            let mut observe = || context.progress(progress.clone()).map_err(|_| checkpoint::Error::Cancelled);
            eval::log_likelihoods(decoder, batch, &mut observe)
        };
        let found: Vec<Vec<f64>> = batches.par_iter().map(ask).collect::<Result<Vec<_>, _>>()?.concat();
        if found.iter().flatten().any(|score| !score.is_finite()) {
            return Err(Error::numerical(format!("a log-likelihood of the {part} model on {task} is not finite")));
        }
        sheet.write(&found)?;
        batches.iter().flatten().zip(&found).for_each(|(document, answers)| mark(document, answers));
        done += found.len() as u64;
        context.observer.step_finished();
    }
}

/// The next batches, at most `most`.
fn next_batches(
    documents: &mut Peekable<impl Iterator<Item = Result<Document, checkpoint::Error>>>,
    most: usize,
) -> Result<Vec<Vec<Document>>, Error> {
    let mut batches = Vec::with_capacity(most);
    while batches.len() < most {
        let batch = eval::next_batch(documents)?;
        if batch.is_empty() {
            break;
        }
        batches.push(batch);
    }
    Ok(batches)
}
