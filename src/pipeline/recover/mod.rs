//! Stage 4, where it is asked for: training of what was kept (the starred rows of the paper's tables). With adapters on
//! every matrix, as in the paper, or of all parameters of the layers, as in the reference code.

mod adapters;
mod batches;
mod checkpoint;
mod examples;
mod lessons;
mod outcome;
mod pass;
mod prompt;
mod schedule;
mod stage;
mod trainer;

use std::time::{Duration, Instant};

use candle_core::DType;

use self::{
    batches::{Batches, MicroBatch},
    checkpoint::Course,
    pass::mean_loss,
    trainer::{Step, Trainer},
};
pub(super) use self::{
    lessons::Lessons,
    stage::{Recovered, RecoveryTask, recover},
};
use super::{Context, Error, state::State};
use crate::{
    job::{HeldOutReport, Progress, RecoveryReport, Stage, TrainingPoint, ValidationPoint, spec::RecoveryMethod},
    model::{Decoder, Round, Scope},
};

/// Steps between two checkpoints, and the time after which there is one anyway.
const SAVE_EVERY: usize = 50;
const SAVE_AFTER: Duration = Duration::from_mins(1);

/// Trains `layers` of the decoder, ascending, computing in `dtype`, and leaves it in f32 with the parameters of the lowest
/// validation loss.
fn train_and_merge(
    decoder: &mut Decoder,
    dtype: DType,
    lessons: &Lessons<'_>,
    layers: &[usize],
    state: &mut State,
    context: &Context<'_>,
) -> Result<(Course, u64), Error> {
    let round = Round::default();
    let recovery = lessons.recovery;
    let scope = match recovery.method {
        RecoveryMethod::Full => Scope::Full,
        RecoveryMethod::Lora => {
            adapters::attach(decoder, layers, recovery, &round)?;
            Scope::Adapters
        }
    };
    let mut trainer = Trainer::new(decoder, dtype, (recovery, layers), scope, round)?;
    let course = train(decoder, &mut trainer, lessons, state, context)?;
    let trained = trainer.count();
    trainer.finish(decoder)?;
    if scope == Scope::Adapters {
        adapters::merge(decoder, layers)?;
    }
    Ok((course, trained))
}

/// Steps until all are taken, with a validation now and then and at the end, and checkpoints on the way.
fn train(
    decoder: &Decoder,
    trainer: &mut Trainer<'_>,
    lessons: &Lessons<'_>,
    state: &mut State,
    context: &Context<'_>,
) -> Result<Course, Error> {
    let recovery = trainer.recovery;
    let batches = Batches {
        examples: &lessons.examples.training,
        batch_size: recovery.batch_size,
        micro_batch_size: recovery.micro_batch_size,
        seed: recovery.seed,
    };
    let total = schedule::steps(recovery, batches.per_epoch());
    let mut course = checkpoint::restore(trainer, state)?;
    let mut saved = Instant::now();
    while course.curve.len() < total {
        let start = Instant::now();
        take_step(decoder, trainer, &batches, total, &mut course, context)?;
        course.seconds += start.elapsed().as_secs_f64();
        let done = course.curve.len();
        if done.is_multiple_of(recovery.validate_every) || done == total {
            validate(decoder, trainer, &lessons.validation, (done, total), &mut course, context)?;
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
    let training = course.standing(learning_rate);
    let step = Step { index, learning_rate, batch: &batch };
    let loss = trainer.step(decoder, &step, &mut || {
        context.progress(Progress { training, ..Progress::new(Stage::Recover, index as u64, total as u64) })
    })?;
    course.tokens += batch.iter().map(MicroBatch::tokens).sum::<u64>();
    course.curve.push(TrainingPoint { step: index + 1, loss, learning_rate });
    Ok(())
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
    let loss = mean_loss(decoder, batches, &mut |batch| {
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

/// What training did, in words and numbers.
fn report(
    lessons: &Lessons<'_>,
    layers: &[usize],
    (course, trained_parameters): (Course, u64),
    held_out: Option<HeldOutReport>,
) -> RecoveryReport {
    let best_step = course.best().map_or(course.curve.len(), |best| best.step);
    let Lessons { recovery, examples, .. } = lessons;
    RecoveryReport {
        method: recovery.method,
        layers: layers.to_vec(),
        trained_parameters,
        examples: examples.training.len(),
        validation_examples: examples.validation.len(),
        skipped: examples.skipped,
        steps: course.curve.len(),
        best_step,
        tokens: course.tokens,
        tokens_per_second: course.tokens_per_second(),
        curve: course.curve,
        validation: course.validation,
        held_out,
    }
}
