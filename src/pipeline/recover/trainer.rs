//! What trains: parameters, what the optimiser knows of them, and a step.

use candle_core::Tensor;

use super::{batches::MicroBatch, pass::Pass, schedule::derived};
use crate::{
    job::spec::Recovery,
    model::{AdamW, Decoder, Gradients, Moments, Parameter, Round, Scope, module_name},
    pipeline::Error,
};

/// torch adds this to a norm before it divides by it.
const NORM_EPS: f64 = 1e-6;

/// A parameter that trains. The tensor is the decoder's own: a step changes it in place.
pub(super) struct Trained {
    pub(super) layer: usize,
    pub(super) parameter: Parameter,
    pub(super) tensor: Tensor,
    pub(super) moments: Moments,
    /// Its numbers when the validation loss was lowest.
    pub(super) best: Option<Tensor>,
}

impl Trained {
    /// Its name in a checkpoint.
    pub(super) fn name(&self) -> String {
        module_name(self.layer, &self.parameter.path())
    }
}

/// The trained part of a decoder.
pub(super) struct Trainer<'a> {
    pub(super) recovery: &'a Recovery,
    pub(super) layers: &'a [usize],
    pub(super) scope: Scope,
    pub(super) parameters: Vec<Trained>,
    pub(super) round: Round,
}

/// A step to be taken.
pub(super) struct Step<'a> {
    /// From 0.
    pub(super) index: usize,
    pub(super) learning_rate: f64,
    pub(super) batch: &'a [MicroBatch],
}

impl<'a> Trainer<'a> {
    pub(super) fn new(
        decoder: &Decoder,
        recovery: &'a Recovery,
        layers: &'a [usize],
        scope: Scope,
        round: Round,
    ) -> Result<Self, Error> {
        let mut parameters = Vec::new();
        for &layer in layers {
            for (parameter, tensor) in decoder.block(layer)?.parameters(scope) {
                let moments = Moments::new(&tensor)?;
                parameters.push(Trained { layer, parameter, tensor, moments, best: None });
            }
        }
        Ok(Self { recovery, layers, scope, parameters, round })
    }

    /// Numbers that train.
    pub(super) fn count(&self) -> u64 {
        self.parameters.iter().map(|trained| trained.tensor.elem_count() as u64).sum()
    }

    const fn pass<'b>(&'b self, decoder: &'b Decoder) -> Pass<'b> {
        Pass { decoder, layers: self.layers, scope: self.scope }
    }

    /// Takes a step; returns the mean loss of the batch's targets before it. `observe` is called inside, layer by layer.
    pub(super) fn step(
        &self,
        decoder: &Decoder,
        step: &Step<'_>,
        observe: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<f64, Error> {
        let targets: usize = step.batch.iter().map(|micro| micro.targets.len()).sum();
        let weight = 1.0 / targets as f32;
        let mut gradients = Gradients::default();
        let mut loss = 0.0;
        for (index, micro) in step.batch.iter().enumerate() {
            self.round.begin(derived(self.recovery.seed, step.index as u64, index as u64));
            loss += self.pass(decoder).learn(micro, weight, &mut gradients, observe)?;
        }
        self.round.end();
        let (loss, norm) = (loss / targets as f64, gradients.norm()?);
        if !loss.is_finite() || !norm.is_finite() {
            return Err(Error::numerical(format!(
                "the loss of recovery step {} is {loss} and its gradients have the norm {norm}: lower recovery.learning_rate",
                step.index + 1
            )));
        }
        let adamw = AdamW {
            step: step.index + 1,
            learning_rate: step.learning_rate,
            weight_decay: self.recovery.weight_decay,
            gradient_scale: (self.recovery.max_grad_norm / (norm + NORM_EPS)).min(1.0),
        };
        for trained in &self.parameters {
            let gradient = gradients.get(trained.layer, trained.parameter);
            let gradient =
                gradient.ok_or_else(|| Error::internal(format!("no gradient reached {}", trained.name())))?;
            adamw.apply(&trained.tensor, &trained.moments, gradient)?;
        }
        Ok(loss)
    }

    /// Remembers the parameters as they are.
    pub(super) fn keep_best(&mut self) -> Result<(), Error> {
        for trained in &mut self.parameters {
            match &trained.best {
                Some(best) => best.slice_set(&trained.tensor, 0, 0)?,
                None => trained.best = Some(trained.tensor.copy()?),
            }
        }
        Ok(())
    }

    /// Puts the best parameters back, where there were any.
    pub(super) fn return_to_best(&self) -> Result<(), Error> {
        for trained in &self.parameters {
            if let Some(best) = &trained.best {
                trained.tensor.slice_set(best, 0, 0)?;
            }
        }
        Ok(())
    }
}
