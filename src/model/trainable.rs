//! What of a layer can be trained, by name, and the gradients of it.

use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor};

use super::{
    Block, GradientSink, Linear, Norm, Side, accumulate,
    linear::Step,
    ops::{rms_norm_weight_gradient, squared_norm},
};
use crate::job::spec::Projection;

/// A tensor of a layer that training may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Parameter {
    /// Weight of a norm [width].
    Norm(Norm),
    /// W, InLinear or OutLinear [out, in].
    Weight(Projection, Side),
    /// Bias [out]; it stands on the last matrix of its projection.
    Bias(Projection, Side),
    /// A of a matrix's adapter [rank, in].
    Down(Projection, Side),
    /// B of a matrix's adapter [out, rank].
    Up(Projection, Side),
}

impl Parameter {
    /// Its path inside a layer of a checkpoint: `mlp.up_proj.InLinear.weight`.
    pub fn path(self) -> String {
        let module = |projection: Projection, side: Side| match side {
            Side::Whole => projection.path().to_owned(),
            Side::Input => format!("{}.InLinear", projection.path()),
            Side::Output => format!("{}.OutLinear", projection.path()),
        };
        match self {
            Self::Norm(Norm::Input) => "input_layernorm.weight".to_owned(),
            Self::Norm(Norm::Post) => "post_attention_layernorm.weight".to_owned(),
            Self::Norm(Norm::Query) => "self_attn.q_norm.weight".to_owned(),
            Self::Norm(Norm::Key) => "self_attn.k_norm.weight".to_owned(),
            Self::Weight(projection, side) => format!("{}.weight", module(projection, side)),
            Self::Bias(projection, side) => format!("{}.bias", module(projection, side)),
            Self::Down(projection, side) => format!("{}.lora_A.weight", module(projection, side)),
            Self::Up(projection, side) => format!("{}.lora_B.weight", module(projection, side)),
        }
    }
}

/// Which parameters of a layer train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All but adapters.
    Full,
    /// Adapters only.
    Adapters,
}

impl Block {
    /// The layer's parameters of a scope: handles of the tensors in use, so that a change in place reaches the layer.
    pub fn parameters(&self, scope: Scope) -> Vec<(Parameter, Tensor)> {
        let mut all = Vec::new();
        if scope == Scope::Full {
            all.push((Parameter::Norm(Norm::Input), self.input_norm.clone()));
            all.push((Parameter::Norm(Norm::Post), self.post_norm.clone()));
            if let Some((query, key)) = &self.attention.qk_norm {
                all.push((Parameter::Norm(Norm::Query), query.clone()));
                all.push((Parameter::Norm(Norm::Key), key.clone()));
            }
        }
        for projection in Projection::ALL {
            all.extend(self.projection(projection).parameters(projection, scope));
        }
        all
    }
}

impl Linear {
    fn parameters(&self, projection: Projection, scope: Scope) -> Vec<(Parameter, Tensor)> {
        let mut all = Vec::new();
        let mut last = Side::Whole;
        for Step { side, weight, adapter } in self.steps() {
            last = side;
            match (scope, adapter) {
                (Scope::Full, _) => all.push((Parameter::Weight(projection, side), weight.clone())),
                (Scope::Adapters, Some(adapter)) => {
                    all.push((Parameter::Down(projection, side), adapter.down.clone()));
                    all.push((Parameter::Up(projection, side), adapter.up.clone()));
                }
                (Scope::Adapters, None) => {}
            }
        }
        if let (Scope::Full, Some(bias)) = (scope, &self.bias) {
            all.push((Parameter::Bias(projection, last), bias.clone()));
        }
        all
    }

    /// Gradients of the projection's parameters, from what it got and the gradient of what it gave; and ∂L/∂x, which is found
    /// on the same way.
    fn gradients(
        &self,
        projection: Projection,
        x: &Tensor,
        gy: &Tensor,
        scope: Scope,
    ) -> Result<(Vec<(Parameter, Tensor)>, Tensor)> {
        let steps = self.steps();
        let mut inputs = vec![x.clone()];
        for (step, _) in steps.iter().zip(1..steps.len()) {
            inputs.push(step.forward(&inputs[inputs.len() - 1])?);
        }
        let mut all = Vec::new();
        if let (Scope::Full, Some(_), Some(step)) = (scope, &self.bias, steps.last()) {
            all.push((Parameter::Bias(projection, step.side), gy.to_dtype(DType::F32)?.sum(0)?));
        }
        let mut gy = gy.clone();
        for (step, x) in steps.iter().zip(&inputs).rev() {
            gy = match (scope, step.adapter) {
                (Scope::Adapters, Some(adapter)) => {
                    let (gradients, gx) = adapter.backward(x, &gy, gy.matmul(step.weight)?)?;
                    all.push((Parameter::Down(projection, step.side), gradients.down));
                    all.push((Parameter::Up(projection, step.side), gradients.up));
                    gx
                }
                (Scope::Adapters, None) => step.backward(&gy)?,
                (Scope::Full, _) => {
                    // [out, tokens] · [tokens, in]
                    all.push((Parameter::Weight(projection, step.side), gy.t()?.matmul(x)?));
                    step.backward(&gy)?
                }
            };
        }
        Ok((all, gy))
    }
}

/// Sums of gradients by layer and parameter, in f32.
#[derive(Default)]
pub struct Gradients(BTreeMap<(usize, Parameter), Tensor>);

impl Gradients {
    fn add(&mut self, layer: usize, parameter: Parameter, gradient: &Tensor) -> Result<()> {
        let gradient = gradient.to_dtype(DType::F32)?;
        let sum = match self.0.remove(&(layer, parameter)) {
            Some(sum) => accumulate(sum, &gradient)?,
            None => gradient,
        };
        self.0.insert((layer, parameter), sum);
        Ok(())
    }

    /// The gradient of a layer's parameter, if one reached it.
    pub fn get(&self, layer: usize, parameter: Parameter) -> Option<&Tensor> {
        self.0.get(&(layer, parameter))
    }

    /// Euclidean norm of all gradients together.
    pub fn norm(&self) -> Result<f64> {
        let squares = self.0.values().map(squared_norm).collect::<Result<Vec<_>>>()?;
        Ok(squares.iter().sum::<f64>().sqrt())
    }
}

/// Adds the gradients of a layer's parameters to their sums.
pub struct Collect<'a> {
    /// The layer.
    pub block: &'a Block,
    /// Its index.
    pub layer: usize,
    /// Which of its parameters.
    pub scope: Scope,
    /// Where they go.
    pub sums: &'a mut Gradients,
}

impl GradientSink for Collect<'_> {
    fn accept(&mut self, projection: Projection, x: &Tensor, gy: &Tensor) -> Result<()> {
        self.backward(projection, self.block.projection(projection), x, gy).map(|_| ())
    }

    fn backward(&mut self, projection: Projection, linear: &Linear, x: &Tensor, gy: &Tensor) -> Result<Tensor> {
        let (gradients, gx) = linear.gradients(projection, x, gy, self.scope)?;
        for (parameter, gradient) in gradients {
            self.sums.add(self.layer, parameter, &gradient)?;
        }
        Ok(gx)
    }

    fn accept_norm(&mut self, norm: Norm, x: &Tensor, gy: &Tensor) -> Result<()> {
        if self.scope == Scope::Adapters {
            return Ok(());
        }
        let width = match (norm, &self.block.attention.qk_norm) {
            (Norm::Input | Norm::Post, _) => self.block.input_norm.dim(0)?,
            (Norm::Query | Norm::Key, Some((query, _))) => query.dim(0)?,
            (Norm::Query | Norm::Key, None) => return Ok(()),
        };
        let gradient = rms_norm_weight_gradient(x, width, self.block.eps, gy)?;
        self.sums.add(self.layer, Parameter::Norm(norm), &gradient)
    }
}
