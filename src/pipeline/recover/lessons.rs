//! What a job trains on, and what it keeps back of that: read before anything is computed.

use super::{
    batches::{MicroBatch, by_length},
    examples::{Examples, Rules, end_token},
    pass::mean_loss,
};
use crate::{
    eval::{self, TrainingText},
    job::{Progress, Stage, spec::Recovery},
    model::Decoder,
    pipeline::{Context, Error, Model, state::State},
};

/// The examples of a recovery.
pub(in crate::pipeline) struct Lessons<'a> {
    pub(super) recovery: &'a Recovery,
    pub(super) examples: Examples,
    /// Those that are kept back, as they go through the model.
    pub(super) validation: Vec<MicroBatch>,
}

impl<'a> Lessons<'a> {
    /// Reads and encodes the data.
    pub(in crate::pipeline) fn read(
        recovery: &'a Recovery,
        model: &Model,
        context: &Context<'_>,
    ) -> Result<Self, Error> {
        let dataset = &recovery.dataset;
        let part = Some(format!("reading {dataset}"));
        context.progress(Progress { part, ..Progress::new(Stage::Calibrate, 0, 1) })?;
        let text: TrainingText = eval::load_training(dataset, &context.settings.datasets_dir, &context.settings.hub)?;
        let longest = recovery.max_length.min(model.config.max_position_embeddings);
        let rules = Rules { recovery, longest, end: end_token(&model.config_json) };
        let examples = Examples::new(&text, &model.snapshot.folder, model.config.vocab_size, &rules)?;
        let validation = by_length(examples.validation.iter().collect(), recovery.micro_batch_size);
        Ok(Self { recovery, examples, validation })
    }

    /// How many examples are trained on, in an epoch.
    pub(in crate::pipeline) const fn examples(&self) -> usize {
        self.examples.training.len()
    }

    /// Mean loss of what is kept back, unless an earlier attempt measured it in this `state` of the model; `None` where
    /// nothing is kept back.
    pub(in crate::pipeline) fn held_out(
        &self,
        decoder: &Decoder,
        part: &str,
        state: &mut State,
        context: &Context<'_>,
    ) -> Result<Option<f64>, Error> {
        if self.validation.is_empty() {
            return Ok(None);
        }
        if let Some(&known) = state.finished.held_out.get(part) {
            return Ok(Some(known));
        }
        let total = self.validation.len() as u64;
        let loss = state.timed(Stage::Evaluate, |_| {
            mean_loss(decoder, &self.validation, &mut |done| {
                let part = Some(format!("{part}, kept back of {}", self.recovery.dataset));
                context.progress(Progress { part, ..Progress::new(Stage::Evaluate, done as u64, total) })
            })
        })?;
        if !loss.is_finite() {
            let dataset = &self.recovery.dataset;
            return Err(Error::numerical(format!("the loss of the {part} model on {dataset} is not finite")));
        }
        state.finished.held_out.insert(part.to_owned(), loss);
        state.save()?;
        Ok(Some(loss))
    }

    /// Tokens kept back whose loss counts.
    pub(super) fn held_out_tokens(&self) -> u64 {
        self.validation.iter().map(|micro| micro.targets.len() as u64).sum()
    }
}
