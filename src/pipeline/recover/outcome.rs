//! What training changed, for the export: rounded to the checkpoint's types, in the decoder too, so that it is scored
//! as it is published.

use std::sync::Arc;

use candle_core::Tensor;
use safetensors::Dtype;

use crate::{
    checkpoint::round_to,
    job::spec::{Export, Projection, RecoveryMethod},
    model::{Block, Decoder, Factors, Matrix, Parameter, Scope, module_name},
    pipeline::{
        Error, Model,
        export::{Changes, written_dtype},
        factorize::FactorNumbers,
    },
};

/// Adds what was trained in the decoder's `layers` to `changes`.
pub(super) fn collect(
    decoder: &Decoder,
    layers: &[usize],
    method: RecoveryMethod,
    (model, export): (&Model, &Export),
    changes: &mut Changes,
) -> Result<(), Error> {
    let left: Vec<usize> = (0..model.config.num_layers).filter(|layer| !changes.removed.contains(layer)).collect();
    for &layer in layers {
        let block = &*decoder.block(layer)?;
        let mut outcome = Outcome { block, source: left[layer], model, export, changes: &mut *changes };
        for projection in Projection::ALL {
            outcome.matrix(projection)?;
        }
        match method {
            // Adapters leave biases and norms as they were.
            RecoveryMethod::Lora => {}
            RecoveryMethod::Full => outcome.vectors()?,
        }
    }
    Ok(())
}

struct Outcome<'a> {
    block: &'a Block,
    /// The layer's index in the source.
    source: usize,
    model: &'a Model,
    export: &'a Export,
    changes: &'a mut Changes,
}

impl Outcome<'_> {
    fn matrix(&mut self, projection: Projection) -> Result<(), Error> {
        let module = module_name(self.source, projection.path());
        let dtype = written_dtype(&module, &self.model.weights, self.export);
        match &self.block.projection(projection).matrix {
            Matrix::Dense(weight) => {
                self.changes.trained.insert(format!("{module}.weight"), Arc::new(rounded(weight, dtype)?));
            }
            Matrix::Factored(Factors { input, output }) => {
                let factors = FactorNumbers {
                    rank: input.dim(0)?,
                    input: rounded(input, dtype)?,
                    output: rounded(output, dtype)?,
                };
                self.changes.factors.insert(module, Arc::new(factors));
            }
        }
        Ok(())
    }

    fn vectors(&mut self) -> Result<(), Error> {
        for (parameter, tensor) in self.block.parameters(Scope::Full) {
            let name = match parameter {
                Parameter::Norm(_) => module_name(self.source, &parameter.path()),
                Parameter::Bias(projection, _) => self.bias(projection),
                Parameter::Weight(..) | Parameter::Down(..) | Parameter::Up(..) => continue,
            };
            let module = name.rsplit_once('.').map_or(name.as_str(), |(module, _)| module);
            let stored = self.model.weights.get(&name).map(|entry| entry.dtype);
            let dtype = written_dtype(module, &self.model.weights, self.export).or(stored);
            self.changes.trained.insert(name, Arc::new(rounded(&tensor, dtype)?));
        }
        Ok(())
    }

    /// Where the source has a projection's bias.
    fn bias(&self, projection: Projection) -> String {
        let module = module_name(self.source, projection.path());
        let factored = format!("{module}.OutLinear.bias");
        if self.model.weights.get(&factored).is_some() { factored } else { format!("{module}.bias") }
    }
}

fn rounded(tensor: &Tensor, dtype: Option<Dtype>) -> Result<Vec<f32>, Error> {
    let numbers: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
    let Some(dtype) = dtype else { return Ok(numbers) };
    let numbers = round_to(&numbers, dtype)?;
    tensor.slice_set(&Tensor::from_vec(numbers.clone(), tensor.shape(), tensor.device())?, 0, 0)?;
    Ok(numbers)
}
