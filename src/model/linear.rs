use candle_core::{Result, Tensor};

use super::adapter::Adapter;

/// What replaces a matrix W: W ≈ `output` · `input`.
#[derive(Clone, Debug)]
pub struct Factors {
    /// InLinear [k, in].
    pub input: Tensor,
    /// OutLinear [out, k].
    pub output: Tensor,
}

/// The weight of a linear layer.
#[derive(Clone, Debug)]
pub enum Matrix {
    /// W [out, in].
    Dense(Tensor),
    /// Two factors of it.
    Factored(Factors),
}

impl Matrix {
    /// W [out, in], multiplied out where it is factored.
    pub fn to_dense(&self) -> Result<Tensor> {
        match self {
            Self::Dense(w) => Ok(w.clone()),
            Self::Factored(Factors { input, output }) => output.matmul(input),
        }
    }

    /// `[out, in]`.
    pub fn shape(&self) -> Result<[usize; 2]> {
        match self {
            Self::Dense(w) => w.dims2().map(|(out, input)| [out, input]),
            Self::Factored(factors) => Ok([factors.output.dim(0)?, factors.input.dim(1)?]),
        }
    }
}

/// y = x Wᵀ + b.
#[derive(Clone, Debug)]
pub struct Linear {
    /// W.
    pub matrix: Matrix,
    /// b [out].
    pub bias: Option<Tensor>,
    /// While it is trained that way: what is added to W, or to InLinear and OutLinear. Else empty.
    pub adapters: Vec<Adapter>,
}

/// Which of a linear layer's matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// W itself.
    Whole,
    /// InLinear.
    Input,
    /// OutLinear.
    Output,
}

/// One of the matrices that x goes through.
pub(super) struct Step<'a> {
    pub(super) side: Side,
    /// [out, in].
    pub(super) weight: &'a Tensor,
    pub(super) adapter: Option<&'a Adapter>,
}

impl Step<'_> {
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.matmul(&self.weight.t()?)?;
        match self.adapter {
            Some(adapter) => adapter.add_forward(x, y),
            None => Ok(y),
        }
    }

    pub(super) fn backward(&self, gy: &Tensor) -> Result<Tensor> {
        let gx = gy.matmul(self.weight)?;
        match self.adapter {
            Some(adapter) => adapter.add_backward(gy, gx),
            None => Ok(gx),
        }
    }
}

impl Linear {
    /// A layer that is not trained.
    pub const fn new(matrix: Matrix, bias: Option<Tensor>) -> Self {
        Self { matrix, bias, adapters: Vec::new() }
    }

    /// The matrices in the order that x meets them.
    pub(super) fn steps(&self) -> Vec<Step<'_>> {
        let adapter = |index| self.adapters.get(index);
        match &self.matrix {
            Matrix::Dense(weight) => vec![Step { side: Side::Whole, weight, adapter: adapter(0) }],
            Matrix::Factored(Factors { input, output }) => vec![
                Step { side: Side::Input, weight: input, adapter: adapter(0) },
                Step { side: Side::Output, weight: output, adapter: adapter(1) },
            ],
        }
    }

    /// The matrix with its adapters in it, of the same kind and shape.
    pub fn merged(&self) -> Result<Matrix> {
        let merged = |weight: &Tensor, index: usize| match self.adapters.get(index) {
            Some(adapter) => adapter.merged(weight),
            None => Ok(weight.clone()),
        };
        Ok(match &self.matrix {
            Matrix::Dense(weight) => Matrix::Dense(merged(weight, 0)?),
            Matrix::Factored(Factors { input, output }) => {
                Matrix::Factored(Factors { input: merged(input, 0)?, output: merged(output, 1)? })
            }
        })
    }

    /// `x` [tokens, in] to y [tokens, out].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.steps().iter().try_fold(x.clone(), |x, step| step.forward(&x))?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    /// ∂L/∂x [tokens, in] from `gy` = ∂L/∂y [tokens, out].
    pub fn backward(&self, gy: &Tensor) -> Result<Tensor> {
        self.steps().iter().rev().try_fold(gy.clone(), |gy, step| step.backward(&gy))
    }
}
