use candle_core::{Result, Tensor};

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
}

impl Linear {
    /// `x` [tokens, in] to y [tokens, out].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = match &self.matrix {
            Matrix::Dense(w) => x.matmul(&w.t()?)?,
            Matrix::Factored(Factors { input, output }) => x.matmul(&input.t()?)?.matmul(&output.t()?)?,
        };
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    /// ∂L/∂x [tokens, in] from `gy` = ∂L/∂y [tokens, out].
    pub fn backward(&self, gy: &Tensor) -> Result<Tensor> {
        match &self.matrix {
            Matrix::Dense(w) => gy.matmul(w),
            Matrix::Factored(Factors { input, output }) => gy.matmul(output)?.matmul(input),
        }
    }
}
