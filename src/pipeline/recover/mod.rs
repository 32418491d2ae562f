//! Stage 4, where it is asked for: training of what was kept (the starred rows of the paper's tables). With adapters on
//! every matrix, as in the paper, or of all parameters of the layers, as in the reference code.

mod adapters;
mod batches;
mod checkpoint;
mod examples;
mod outcome;
mod pass;
mod prompt;
mod schedule;
mod stage;
mod trainer;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

pub(super) use self::stage::{Recovered, RecoveryTask, recover};
use self::{
    batches::{Batches, MicroBatch, by_length},
    checkpoint::Course,
    examples::{Examples, Rules, end_token},
    trainer::{Step, Trainer},
};
use super::{Context, Error, state::State};
use crate::{
    eval::{self, TrainingText},
    job::{
        Progress, RecoveryReport, Stage, TrainingPoint, ValidationPoint,
        spec::{Recovery, RecoveryMethod},
    },
    model::{Decoder, Round, Scope},
};

/// Steps between two checkpoints, and the time after which there is one anyway.
const SAVE_EVERY: usize = 50;
const SAVE_AFTER: Duration = Duration::from_mins(1);

/// What is to be trained, on what.
struct Task<'a> {
    recovery: &'a Recovery,
    /// The layers, ascending.
    layers: &'a [usize],
    /// The model's folder, with its tokenizer.
    folder: &'a Path,
    /// config.json of it.
    config: &'a Value,
}

/// Trains the decoder and leaves it with the parameters of the lowest validation loss.
fn train_and_merge(
    decoder: &mut Decoder,
    task: &Task<'_>,
    state: &mut State,
    context: &Context<'_>,
) -> Result<RecoveryReport, Error> {
    let examples = read(decoder, task, context)?;
    let round = Round::default();
    let scope = match task.recovery.method {
        RecoveryMethod::Full => Scope::Full,
        RecoveryMethod::Lora => {
            adapters::attach(decoder, task.layers, task.recovery, &round)?;
            Scope::Adapters
        }
    };
    let mut trainer = Trainer::new(decoder, task.recovery, task.layers, scope, round)?;
    let course = train(decoder, &mut trainer, &examples, state, context)?;
    trainer.return_to_best()?;
    let report = report(task, &trainer, &examples, course);
    drop(trainer);
    if scope == Scope::Adapters {
        adapters::merge(decoder, task.layers)?;
    }
    Ok(report)
}

fn read(decoder: &Decoder, task: &Task<'_>, context: &Context<'_>) -> Result<Examples, Error> {
    let dataset = &task.recovery.dataset;
    let part = Some(format!("reading {dataset}"));
    context.progress(Progress { part, ..Progress::new(Stage::Recover, 0, 0) })?;
    let text: TrainingText = eval::load_training(dataset, &context.settings.datasets_dir, &context.settings.hub)?;
    let longest = task.recovery.max_length.min(decoder.config.max_position_embeddings);
    let rules = Rules { recovery: task.recovery, longest, end: end_token(task.config) };
    Ok(Examples::new(&text, task.folder, decoder.config.vocab_size, &rules)?)
}

/// Steps until all are taken, with a validation now and then and at the end, and checkpoints on the way.
fn train(
    decoder: &Decoder,
    trainer: &mut Trainer<'_>,
    examples: &Examples,
    state: &mut State,
    context: &Context<'_>,
) -> Result<Course, Error> {
    let recovery = trainer.recovery;
    let batches = Batches {
        examples: &examples.training,
        batch_size: recovery.batch_size,
        micro_batch_size: recovery.micro_batch_size,
        seed: recovery.seed,
    };
    let validation = by_length(examples.validation.iter().collect(), recovery.micro_batch_size);
    let total = schedule::steps(recovery, batches.per_epoch());
    let mut course = checkpoint::restore(trainer, state)?;
    let mut saved = Instant::now();
    while course.curve.len() < total {
        let start = Instant::now();
        take_step(decoder, trainer, &batches, total, &mut course, context)?;
        course.seconds += start.elapsed().as_secs_f64();
        let done = course.curve.len();
        if done.is_multiple_of(recovery.validate_every) || done == total {
            validate(decoder, trainer, &validation, (done, total), &mut course, context)?;
        }
        if done.is_multiple_of(SAVE_EVERY) || done == total || saved.elapsed() >= SAVE_AFTER {
            checkpoint::save(trainer, &course, state)?;
            state.step(context)?;
            saved = Instant::now();
        }
    }
    Ok(course)
}

fn take_step(
    decoder: &Decoder,
    trainer: &Trainer<'_>,
    batches: &Batches<'_>,
    total: usize,
    course: &mut Course,
    context: &Context<'_>,
) -> Result<(), Error> {
    let index = course.curve.len();
    let learning_rate = schedule::learning_rate(trainer.recovery, index, total);
    let batch = batches.at(index);
    let part = describe(course, learning_rate, total);
    let step = Step { index, learning_rate, batch: &batch };
    let loss = trainer.step(decoder, &step, &mut || {
        let progress = Progress { part: part.clone(), ..Progress::new(Stage::Recover, index as u64, total as u64) };
        context.progress(progress)
    })?;
    course.tokens += batch.iter().map(MicroBatch::tokens).sum::<u64>();
    course.curve.push(TrainingPoint { step: index + 1, loss, learning_rate });
    Ok(())
}

/// How the training goes, in words: the last loss, the learning rate, the speed, and the time that is left.
fn describe(course: &Course, learning_rate: f64, total: usize) -> Option<String> {
    let last = course.curve.last()?;
    let speed = course.tokens as f64 / course.seconds.max(1e-9);
    let left = course.seconds / course.curve.len() as f64 * (total - course.curve.len()) as f64;
    Some(format!(
        "loss {:.3}, lr {learning_rate:.1e}, {speed:.0} tokens/s, {} left",
        last.loss,
        match left {
            ..90.0 => format!("{left:.0} s"),
            90.0..5400.0 => format!("{:.0} min", left / 60.0),
            _ => format!("{:.1} h", left / 3600.0),
        }
    ))
}

fn validate(
    decoder: &Decoder,
    trainer: &mut Trainer<'_>,
    batches: &[MicroBatch],
    (done, total): (usize, usize),
    course: &mut Course,
    context: &Context<'_>,
) -> Result<(), Error> {
    if batches.is_empty() {
        return Ok(());
    }
    let loss = trainer.validate(decoder, batches, &mut |batch| {
        let part = Some(format!("validation, {batch} of {} batches", batches.len()));
        context.progress(Progress { part, ..Progress::new(Stage::Recover, done as u64, total as u64) })
    })?;
    if !loss.is_finite() {
        let message = format!("the validation loss after recovery step {done} is {loss}: lower recovery.learning_rate");
        return Err(Error::numerical(message));
    }
    course.validation.push(ValidationPoint { step: done, loss });
    if course.best().is_some_and(|best| best.step == done) {
        trainer.keep_best()?;
    }
    Ok(())
}

fn report(task: &Task<'_>, trainer: &Trainer<'_>, examples: &Examples, course: Course) -> RecoveryReport {
    let best_step = course.best().map_or(course.curve.len(), |best| best.step);
    RecoveryReport {
        method: task.recovery.method,
        layers: task.layers.to_vec(),
        trained_parameters: trainer.count(),
        examples: examples.training.len(),
        validation_examples: examples.validation.len(),
        skipped: examples.skipped,
        steps: course.curve.len(),
        best_step,
        tokens: course.tokens,
        tokens_per_second: course.tokens as f64 / course.seconds.max(1e-9),
        curve: course.curve,
        validation: course.validation,
    }
}
