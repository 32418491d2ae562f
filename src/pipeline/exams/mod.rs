//! Stage 5: tasks, and what it takes to generate. What finished batches gave lies in the work folder, and a later attempt goes on behind them.

mod inference;
mod outcome;
mod sheet;

use std::{iter::Peekable, path::Path, sync::Arc};

use indexmap::IndexMap;
use rayon::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

pub(super) use self::outcome::evaluation_report;
use self::sheet::Sheet;
use super::{Context, Error, state::State};
use crate::{
    checkpoint,
    eval::{self, Asking, Document, Documents, Encoder, Exam, Form, Generative, Item, Prompt, Rolling, Tally, Volume},
    job::{
        GenerationScores, GenerationTask, InferenceFigures, Progress, RollingScores, Stage, TaskScores,
        spec::Evaluation,
    },
    model::{Config, Decoder},
};

/// Batches that go through the model at once: what one of them does on a single core leaves the others to the next.
pub(super) const BATCHES_AT_ONCE: usize = 2;
/// A prompt that is cut to fewer tokens asks nothing.
const LEAST_PROMPT: usize = 2;

/// The tasks that a job is scored on, read and encoded.
#[derive(Default)]
pub(super) struct Exams {
    choices: Vec<Exam>,
    rolling: Vec<Rolling>,
    generation: Vec<Generative>,
    /// Whether the model's speed is measured too.
    inference: bool,
}

impl Exams {
    /// What is measured beside tasks.
    pub(super) fn without_tasks(evaluation: &Evaluation) -> Self {
        Self { inference: evaluation.inference, ..Self::default() }
    }

    /// Every task with how much is asked in it, in the order it is taken.
    pub(super) fn tasks(&self) -> impl Iterator<Item = (&'static str, Volume)> {
        let choices = self.choices.iter().map(|exam| (exam.task.as_str(), exam.documents.volume));
        let rolling = self.rolling.iter().map(|rolling| (rolling.task.as_str(), rolling.windows.volume));
        let generation = self.generation.iter().map(|task| (task.task.as_str(), task.documents.volume));
        choices.chain(rolling).chain(generation)
    }

    /// Tokens of the longest prompt with its answer, where the model writes answers.
    pub(super) fn longest_generation(&self) -> Option<usize> {
        self.generation.iter().map(|task| task.documents.volume.longest).max()
    }
}

/// What a model got in each of them.
#[derive(Default)]
pub(super) struct Marks {
    choices: IndexMap<String, TaskScores>,
    rolling: IndexMap<String, RollingScores>,
    generation: IndexMap<String, GenerationScores>,
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
    let total = evaluation.tasks.len() + evaluation.rolling.len() + evaluation.generation.len();
    let mut exams = Exams::without_tasks(evaluation);
    if total == 0 {
        return Ok(exams);
    }
    let encoder = Arc::new(Encoder::open(folder, config.vocab_size)?);
    evaluation.generation.iter().try_for_each(|&task| check_room(task, config))?;
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
    for &task in &evaluation.generation {
        progress(exams.tasks().count(), task.as_str())?;
        exams.generation.push(Generative::read(task, asking, &encoder, sources, &place(task.as_str()))?);
    }
    Ok(exams)
}

fn check_room(task: GenerationTask, config: &Config) -> Result<(), Error> {
    let (context, answer) = (config.max_position_embeddings, Form::of(task).max_new_tokens);
    if context < answer + LEAST_PROMPT {
        return Err(Error::invalid_spec(format!(
            "evaluation.tasks: an answer of {task} may have {answer} tokens, which leaves no room for a prompt in the model's context of {context}: leave the task out"
        )));
    }
    Ok(())
}

/// Asks the decoder every question; `part` says which model it is.
pub(super) fn take_exams(
    decoder: &mut Decoder,
    exams: &Exams,
    part: &str,
    state: &mut State,
    context: &Context<'_>,
) -> Result<Marks, Error> {
    decoder.reach(exams.tasks().map(|(_, volume)| volume.longest).max().unwrap_or(0))?;
    let mut marks = Marks::default();
    for exam in &exams.choices {
        let mut tally = Tally::default();
        let sitting = Sitting { decoder, part, task: exam.task.as_str(), context };
        let ask = |documents: &[Document], observe: Observe<'_>| sitting.log_likelihoods(documents, observe);
        let mut mark = |document: &Document, answers: Vec<f64>| tally.add(document, &answers);
        state.timed(Stage::Evaluate, |state| sitting.take(&exam.documents, state, &ask, &mut mark))?;
        marks.choices.insert(exam.task.to_string(), tally.scores(exam.task));
    }
    for rolling in &exams.rolling {
        let mut sum = 0.0;
        let sitting = Sitting { decoder, part, task: rolling.task.as_str(), context };
        let ask = |documents: &[Document], observe: Observe<'_>| sitting.log_likelihoods(documents, observe);
        let mut mark = |_: &Document, answers: Vec<f64>| sum += answers.iter().sum::<f64>();
        state.timed(Stage::Evaluate, |state| sitting.take(&rolling.windows, state, &ask, &mut mark))?;
        marks.rolling.insert(rolling.task.to_string(), rolling.scores(sum));
    }
    for generative in &exams.generation {
        let mut marking = generative.marking();
        let sitting = Sitting { decoder, part, task: generative.task.as_str(), context };
        let ask = |prompts: &[Prompt], observe: Observe<'_>| sitting.written(generative, prompts, observe);
        let mut mark = |prompt: &Prompt, answer: String| marking.add(prompt, &answer);
        state.timed(Stage::Evaluate, |state| sitting.take(&generative.documents, state, &ask, &mut mark))?;
        marks.generation.insert(generative.task.to_string(), marking.scores());
    }
    if exams.inference {
        marks.inference = inference::measure(decoder, part, state, context)?;
    }
    Ok(marks)
}

/// Called after each layer; an error ends the batch.
type Observe<'a> = &'a mut dyn FnMut() -> Result<(), checkpoint::Error>;

/// Gets some documents and gives an answer to each.
type Ask<'a, D, A> = dyn Fn(&[D], Observe<'_>) -> Result<Vec<A>, Error> + Sync + 'a;

/// A decoder before a task; `part` says which model it is.
struct Sitting<'a> {
    decoder: &'a Decoder,
    part: &'a str,
    task: &'a str,
    context: &'a Context<'a>,
}

impl Sitting<'_> {
    /// Asks what is in `documents`, behind what an earlier attempt asked; `mark` gets every document with its answer, in
    /// order.
    fn take<D: Item, A: Serialize + DeserializeOwned + Send>(
        &self,
        documents: &Documents<D>,
        state: &State,
        ask: &Ask<'_, D, A>,
        mark: &mut dyn FnMut(&D, A),
    ) -> Result<(), Error> {
        let Self { decoder, part, task, context } = *self;
        let (mut sheet, answers) =
            Sheet::open(state.path(&format!("{part}-{task}.jsonl")), &state.finished.fingerprint)?;
        let mut left = documents.read()?.peekable();
        let mut done = 0;
        for answer in answers {
            let Some(document) = left.next() else { break };
            mark(&document?, answer?);
            done += 1;
        }
        loop {
            // A device of its own is one queue.
            let batches = next_batches(&mut left, if decoder.device.is_cpu() { BATCHES_AT_ONCE } else { 1 })?;
            if batches.is_empty() {
                return Ok(());
            }
            let mut progress = Progress::new(Stage::Evaluate, done, documents.volume.count as u64);
            progress.part = Some(format!("{part}, {task}"));
            let ask = |batch: &Vec<D>| {
                let mut observe = || context.progress(progress.clone()).map_err(|_| checkpoint::Error::Cancelled);
                ask(batch, &mut observe)
            };
            let found: Vec<Vec<A>> = batches.par_iter().map(ask).collect::<Result<_, _>>()?;
            let found: Vec<A> = found.into_iter().flatten().collect();
            sheet.write(&found)?;
            done += found.len() as u64;
            batches.iter().flatten().zip(found).for_each(|(document, answer)| mark(document, answer));
            context.observer.step_finished();
        }
    }

    /// Those of every choice of every document.
    fn log_likelihoods(&self, documents: &[Document], observe: Observe<'_>) -> Result<Vec<Vec<f64>>, Error> {
        let found = eval::log_likelihoods(self.decoder, documents, observe)?;
        if found.iter().flatten().any(|score| !score.is_finite()) {
            return Err(self.not_finite("a log-likelihood"));
        }
        Ok(found)
    }

    /// What stands behind every prompt.
    fn written(&self, task: &Generative, prompts: &[Prompt], observe: Observe<'_>) -> Result<Vec<String>, Error> {
        let mut answers = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            let answer = task.answer(self.decoder, prompt, observe)?;
            answers.push(answer.ok_or_else(|| self.not_finite("a logit"))?);
        }
        Ok(answers)
    }

    fn not_finite(&self, what: &str) -> Error {
        Error::numerical(format!("{what} of the {} model on {} is not finite", self.part, self.task))
    }
}

/// The next batches, at most `most`.
fn next_batches<D: Item>(
    documents: &mut Peekable<impl Iterator<Item = Result<D, checkpoint::Error>>>,
    most: usize,
) -> Result<Vec<Vec<D>>, Error> {
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
