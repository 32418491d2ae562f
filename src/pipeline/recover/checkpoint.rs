//! A training on disk: parameters, optimiser state, the best parameters so far, and the course of it.

use std::{fs, path::Path};

use candle_core::Tensor;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::trainer::Trainer;
use crate::{
    checkpoint::{self, Pending, Weights, narrow, write_safetensors},
    job::{Training, TrainingPoint, ValidationPoint},
    pipeline::{
        Error,
        durable::{read_json, write_json},
        state::State,
    },
};

const COURSE: &str = "course.json";

/// How a training went so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Course {
    /// One point a step: as many as there were steps.
    pub(super) curve: Vec<TrainingPoint>,
    pub(super) validation: Vec<ValidationPoint>,
    /// Tokens that went through the model in training steps, padding not counted.
    pub(super) tokens: u64,
    /// Seconds of training steps.
    pub(super) seconds: f64,
}

impl Course {
    /// The validation with the lowest loss.
    pub(super) fn best(&self) -> Option<&ValidationPoint> {
        self.validation.iter().min_by(|a, b| a.loss.total_cmp(&b.loss))
    }

    /// How it goes while a step with this learning rate is at work; nothing before a step is done.
    pub(super) fn standing(&self, learning_rate: f64) -> Option<Training> {
        let loss = self.curve.last()?.loss;
        Some(Training { loss, learning_rate, tokens_per_second: self.tokens_per_second() })
    }

    /// Tokens learned from per second of training steps.
    pub(super) fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.seconds.max(1e-9)
    }
}

/// What is stored of a parameter, by the first part of its name.
const PARTS: [&str; 4] = ["parameter", "first", "second", "best"];

/// Checkpoints that are kept: the last, and the one to go back to where it is damaged.
const KEPT: usize = 2;

/// Puts the training on disk, and only then forgets what is older than the time before.
pub(super) fn save(trainer: &Trainer<'_>, course: &Course, state: &mut State) -> Result<(), Error> {
    let name = format!("recovery-{:07}-{}", course.curve.len(), course.validation.len());
    if state.finished.recovery.last() == Some(&name) {
        return Ok(());
    }
    state.write_folder(&name, |folder| {
        write_safetensors(folder, tensors(trainer), u64::MAX, || Ok(()))?;
        write_json(&folder.join(COURSE), course)
    })?;
    let kept = &mut state.finished.recovery;
    kept.push(name);
    let old: Vec<String> = kept.drain(..kept.len().saturating_sub(KEPT)).collect();
    state.save()?;
    for name in old {
        let path = state.path(&name);
        fs::remove_dir_all(&path).map_err(checkpoint::Error::io(&path))?;
    }
    Ok(())
}

fn tensors<'a>(trainer: &'a Trainer<'_>) -> Vec<Pending<'a>> {
    let mut pending = Vec::new();
    for trained in &trainer.parameters {
        let tensors =
            [Some(&trained.master), Some(&trained.moments.first), Some(&trained.moments.second), trained.best.as_ref()];
        for (part, tensor) in PARTS.iter().zip(tensors) {
            let Some(tensor) = tensor else { continue };
            pending.push(Pending {
                name: format!("{part}.{}", trained.name()),
                dtype: Dtype::F32,
                shape: tensor.dims().to_vec(),
                bytes: Box::new(move || narrow(&tensor.flatten_all()?.to_vec1::<f32>()?, Dtype::F32)),
            });
        }
    }
    pending
}

/// Takes up a training where an earlier attempt left it; a new one where there is none.
pub(super) fn restore(trainer: &mut Trainer<'_>, state: &State) -> Result<Course, Error> {
    let Some(name) = state.finished.recovery.last() else { return Ok(Course::default()) };
    let folder = state.path(name);
    let course = read_json(&folder.join(COURSE))
        .ok_or_else(|| checkpoint::Error::invalid(&folder, "holds no readable course of a training"))?;
    fill(trainer, &folder)?;
    Ok(course)
}

fn fill(trainer: &mut Trainer<'_>, folder: &Path) -> Result<(), Error> {
    let weights = Weights::open(folder)?;
    for trained in &mut trainer.parameters {
        let name = trained.name();
        let read = |part: &str, like: &Tensor| weights.tensor(&format!("{part}.{name}"), like.dims(), like.device());
        let [parameter, first, second, best] = PARTS;
        trained.master.slice_set(&read(parameter, &trained.master)?, 0, 0)?;
        trained.moments.first.slice_set(&read(first, &trained.master)?, 0, 0)?;
        trained.moments.second.slice_set(&read(second, &trained.master)?, 0, 0)?;
        if weights.get(&format!("{best}.{name}")).is_some() {
            trained.best = Some(read(best, &trained.master)?);
        }
        trained.show()?;
    }
    Ok(())
}
