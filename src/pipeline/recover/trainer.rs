//! What trains: parameters, what the optimiser knows of them, and a step.

use candle_core::{DType, Tensor};

use super::{batches::MicroBatch, pass::Pass, schedule::derived};
use crate::{
    job::spec::Recovery,
    model::{AdamW, Decoder, Gradients, Moments, Parameter, Round, Scope, module_name},
    pipeline::Error,
};

/// torch adds this to a norm before it divides by it.
const NORM_EPS: f64 = 1e-6;

/// A parameter that trains. Steps are taken in f32: in place where the decoder computes in f32, else on a master copy
/// (arXiv 1710.03740, section 3.1), which the decoder's own tensor is a rounding of.
pub(super) struct Trained {
    pub(super) layer: usize,
    pub(super) parameter: Parameter,
    /// In f32; the decoder's own tensor where that is f32.
    pub(super) master: Tensor,
    /// The decoder's own tensor.
    working: Tensor,
    pub(super) moments: Moments,
    /// Its numbers when the validation loss was lowest.
    pub(super) best: Option<Tensor>,
}

impl Trained {
    /// Its name in a checkpoint.
    pub(super) fn name(&self) -> String {
        module_name(self.layer, &self.parameter.path())
    }

    /// What the decoder is to hold in the end; `None` where it does already.
    fn outcome(self) -> Option<Tensor> {
        let in_place = self.working.dtype() == DType::F32;
        self.best.or_else(|| (!in_place).then_some(self.master))
    }

    /// Has the decoder compute with the parameter as it is.
    pub(super) fn show(&self) -> Result<(), Error> {
        match self.working.dtype() {
            DType::F32 => Ok(()),
            narrow => Ok(self.working.slice_set(&self.master.to_dtype(narrow)?, 0, 0)?),
        }
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
    /// Has `decoder`, which is in f32, compute in `dtype` from here on, but what trains keeps its digits.
    pub(super) fn new(
        decoder: &mut Decoder,
        dtype: DType,
        (recovery, layers): (&'a Recovery, &'a [usize]),
        scope: Scope,
        round: Round,
    ) -> Result<Self, Error> {
        let masters = parameters(decoder, layers, scope)?;
        decoder.to_dtype(dtype)?;
        let both = masters.into_iter().zip(parameters(decoder, layers, scope)?);
        let trained = both.map(|((layer, parameter, master), (_, _, working))| {
            let moments = Moments::new(&master)?;
            Ok(Trained { layer, parameter, master, working, moments, best: None })
        });
        let parameters = trained.collect::<Result<_, Error>>()?;
        Ok(Self { recovery, layers, scope, parameters, round })
    }

    /// Puts the best parameters back, where there were any, and the decoder into f32 again.
    pub(super) fn finish(self, decoder: &mut Decoder) -> Result<(), Error> {
        let (layers, scope) = (self.layers, self.scope);
        let outcomes: Vec<Option<Tensor>> = self.parameters.into_iter().map(Trained::outcome).collect();
        decoder.to_dtype(DType::F32)?;
        for ((_, _, tensor), outcome) in parameters(decoder, layers, scope)?.iter().zip(outcomes) {
            outcome.map_or(Ok(()), |outcome| tensor.slice_set(&outcome, 0, 0))?;
        }
        Ok(())
    }

    /// Numbers that train.
    pub(super) fn count(&self) -> u64 {
        self.parameters.iter().map(|trained| trained.master.elem_count() as u64).sum()
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
            adamw.apply(&trained.master, &trained.moments, gradient)?;
            trained.show()?;
        }
        Ok(loss)
    }

    /// Remembers the parameters as they are.
    pub(super) fn keep_best(&mut self) -> Result<(), Error> {
        for trained in &mut self.parameters {
            match &trained.best {
                Some(best) => best.slice_set(&trained.master, 0, 0)?,
                None => trained.best = Some(trained.master.copy()?),
            }
        }
        Ok(())
    }
}

/// What trains of a decoder, in a fixed order.
fn parameters(decoder: &Decoder, layers: &[usize], scope: Scope) -> Result<Vec<(usize, Parameter, Tensor)>, Error> {
    let mut all = Vec::new();
    for &layer in layers {
        all.extend(decoder.block(layer)?.parameters(scope).into_iter().map(|(name, tensor)| (layer, name, tensor)));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use candle_core::Device;
    use serde_json::json;

    use super::*;
    use crate::{
        checkpoint::Weights,
        job::JobSpec,
        model::{Config, Place, Residency},
        pipeline::recover::{adapters, batches::by_length, examples::Example},
    };

    const LAYERS: [usize; 2] = [2, 5];

    fn source() -> Decoder {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama");
        let (config, _) = Config::read(&folder).unwrap();
        let weights = Arc::new(Weights::open(&folder).unwrap());
        let place = Place { device: &Device::Cpu, residency: Residency::Resident, scratch: &folder };
        Decoder::load(&weights, &config, 64, place, &mut |_, _| Ok(())).unwrap()
    }

    fn recovery(method: &str) -> Recovery {
        let lora = json!({"method": "lora", "dropout": 0.1, "rank": 8});
        let body =
            json!({"model": "file:m", "recovery": if method == "lora" { lora } else { json!({"method": method}) }});
        JobSpec::parse(&body).unwrap().recovery.unwrap()
    }

    /// The losses of some steps on the same few sequences, and the decoder after them.
    fn train(method: &str, dtype: DType, learning_rate: f64) -> (Vec<f64>, Decoder) {
        let (mut decoder, recovery, round) = (source(), recovery(method), Round::default());
        let scope = if method == "lora" { Scope::Adapters } else { Scope::Full };
        if scope == Scope::Adapters {
            adapters::attach(&mut decoder, &LAYERS, &recovery, &round).unwrap();
        }
        let mut trainer = Trainer::new(&mut decoder, dtype, (&recovery, &LAYERS), scope, round).unwrap();
        assert_eq!(decoder.embedding.dtype(), dtype);
        let sequence = |seed: u32| (0..40).map(|at| (at * at * (7 + seed) + 31 * seed) % 2000).collect();
        let examples: Vec<Example> = (0..4).map(|seed| Example { tokens: sequence(seed), first: 1 }).collect();
        let batch = by_length(examples.iter().collect(), 2);
        let step = |index| {
            let step = Step { index, learning_rate, batch: &batch };
            trainer.step(&decoder, &step, &mut || Ok(())).unwrap()
        };
        let losses = (0..8).map(step).collect();
        trainer.keep_best().unwrap();
        trainer.finish(&mut decoder).unwrap();
        (losses, decoder)
    }

    fn weights(decoder: &Decoder, layer: usize, scope: Scope) -> Vec<f32> {
        let all = decoder.block(layer).unwrap().parameters(scope);
        all.iter().flat_map(|(_, tensor)| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect()
    }

    #[test]
    fn training_in_bf16_follows_that_in_f32() {
        for method in ["full", "lora"] {
            let (wide, _) = train(method, DType::F32, 2e-3);
            let (narrow, decoder) = train(method, DType::BF16, 2e-3);
            assert!(wide[7] < 0.95 * wide[0], "{method}: {wide:?}");
            for (wide, narrow) in wide.iter().zip(&narrow) {
                assert!((narrow / wide - 1.0).abs() < 0.02, "{method}: {wide} in f32, {narrow} in bf16");
            }
            // What does not train comes back as it was.
            assert!(weights(&decoder, 3, Scope::Full) == weights(&source(), 3, Scope::Full));
        }
    }

    #[test]
    fn steps_smaller_than_a_digit_of_bf16_add_up_in_the_masters() {
        let bits = |decoder: &Decoder| -> Vec<u32> {
            weights(decoder, 2, Scope::Full).into_iter().map(f32::to_bits).collect()
        };
        let before = bits(&source());
        let moved = |decoder: &Decoder| {
            let after = bits(decoder);
            after.iter().zip(&before).filter(|(after, before)| after != before).count() as f64 / before.len() as f64
        };
        let (losses, decoder) = train("full", DType::BF16, 1e-6);
        assert!(moved(&decoder) > 0.99, "{}", moved(&decoder));
        let mut rounded = decoder;
        rounded.round_to(DType::BF16).unwrap();
        assert!(moved(&rounded) < 0.1, "the same steps in bf16 alone: {}", moved(&rounded));
        assert!(losses.iter().all(|loss| loss.is_finite()));
    }
}
