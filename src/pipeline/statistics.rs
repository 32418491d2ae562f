//! What the passes add up of a layer's activations and gradients: G = Σ gᵀ x for the scores of the paper, C = Σ x xᵀ and
//! A = Σ g gᵀ for the whitened bases, and the squared σ gradients of each window for the Fisher score. x [tokens, in] is
//! what a matrix gets, g [tokens, out] the gradient of what it gives.

use std::{collections::BTreeMap, path::Path};

use candle_core::{Result as DeviceResult, Tensor};
use safetensors::Dtype;

use super::Error;
use crate::{
    checkpoint::{self, Pending, Weights, narrow, write_safetensors},
    job::spec::{Basis, Projection, Score},
    model::{Batch, Config, GradientSink, accumulate, add_gram, module_name},
};

/// Which sums a basis and a score need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one flag for each sum, independent of each other")]
pub(super) struct Needs {
    /// G.
    pub(super) gradient: bool,
    /// C.
    pub(super) input: bool,
    /// A.
    pub(super) output: bool,
    /// Σ over the windows of (∂L/∂σ)², which takes the triplets beforehand.
    pub(super) squares: bool,
}

impl Needs {
    /// Nothing is added up.
    pub(super) const NONE: Self = Self { gradient: false, input: false, output: false, squares: false };

    pub(super) const fn of(basis: Basis, score: Score) -> Self {
        Self {
            gradient: matches!(score, Score::Taylor | Score::Gradient),
            input: matches!(basis, Basis::Whitened | Basis::TwoSided),
            output: matches!(basis, Basis::TwoSided),
            squares: matches!(score, Score::Fisher),
        }
    }

    /// Whether there is anything to add up.
    pub(super) const fn anything(self) -> bool {
        self.gradient || self.input || self.output || self.squares
    }

    /// Numbers of a layer's sums.
    pub(super) fn numbers(self, config: &Config, projections: &[Projection]) -> u64 {
        let of = |&projection: &Projection| {
            let [out, input] = config.projection_shape(projection);
            let gradient = if self.gradient { out * input } else { 0 };
            let output = if self.output { out * out } else { 0 };
            // The triplets are held beside the sums.
            let triplets = if self.squares { out.min(input) * (out + input) } else { 0 };
            let first = self.input && is_first_of_group(projection, projections);
            (gradient + output + triplets + if first { input * input } else { 0 }) as u64
        };
        projections.iter().map(of).sum()
    }
}

/// Whether of the chosen projections that share an input this is the first.
fn is_first_of_group(projection: Projection, chosen: &[Projection]) -> bool {
    chosen.iter().find(|other| other.input_group() == projection.input_group()) == Some(&projection)
}

/// A sum of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sum {
    /// G [out, in].
    Gradient(Projection),
    /// C [in, in], of the projections that share an input under the first of them all; the lower triangle.
    Input(Projection),
    /// A [out, out]; the lower triangle.
    Output(Projection),
    /// Σ over the windows of (∂L/∂σ)² [r].
    Squares(Projection),
}

impl Sum {
    fn name(self) -> String {
        let (kind, projection) = match self {
            Self::Gradient(projection) => ("gradient", projection),
            Self::Input(projection) => ("input", projection),
            Self::Output(projection) => ("output", projection),
            Self::Squares(projection) => ("squares", projection),
        };
        format!("{}.{kind}", projection.path())
    }

    fn shape(self, config: &Config) -> Vec<usize> {
        match self {
            Self::Gradient(projection) => config.projection_shape(projection).to_vec(),
            Self::Input(projection) => vec![config.projection_shape(projection)[1]; 2],
            Self::Output(projection) => vec![config.projection_shape(projection)[0]; 2],
            Self::Squares(projection) => {
                let [out, input] = config.projection_shape(projection);
                vec![out.min(input)]
            }
        }
    }

    /// All that are needed of a layer's projections.
    fn all(needs: Needs, projections: &[Projection]) -> Vec<Self> {
        let mut all = Vec::new();
        for &projection in projections {
            let sums = [
                (needs.gradient, Self::Gradient(projection)),
                (needs.input && is_first_of_group(projection, projections), Self::Input(projection.input_group())),
                (needs.output, Self::Output(projection)),
                (needs.squares, Self::Squares(projection)),
            ];
            all.extend(sums.iter().filter(|(needed, _)| *needed).map(|(_, sum)| *sum));
        }
        all
    }
}

/// Left and right singular vectors U [out, r] and V [in, r] by layer and projection, for the Fisher score.
pub(super) type Frames = BTreeMap<(usize, Projection), (Tensor, Tensor)>;

/// The sums of one layer.
#[derive(Default)]
pub(super) struct LayerSums(BTreeMap<Sum, Tensor>);

impl LayerSums {
    /// The numbers of a sum, row-major; `None` where it was not needed.
    pub(super) fn numbers(&self, sum: Sum) -> Result<Option<Vec<f32>>, Error> {
        Ok(self.0.get(&sum).map(|sum| sum.flatten_all()?.to_vec1()).transpose()?)
    }

    fn add(&mut self, key: Sum, addend: Tensor) -> DeviceResult<()> {
        let sum = match self.0.remove(&key) {
            Some(sum) => accumulate(sum, &addend)?,
            None => addend,
        };
        self.0.insert(key, sum);
        Ok(())
    }

    fn add_gram(&mut self, key: Sum, vectors: &Tensor) -> DeviceResult<()> {
        let sum = add_gram(self.0.remove(&key), vectors)?;
        self.0.insert(key, sum);
        Ok(())
    }

    /// A sum that is missing or not finite ends the job: it must never be taken for "unimportant".
    pub(super) fn check(&self, layer: usize, needs: Needs, projections: &[Projection]) -> Result<(), Error> {
        for sum in Sum::all(needs, projections) {
            let name = || module_name(layer, &sum.name());
            let found =
                self.0.get(&sum).ok_or_else(|| Error::internal(format!("nothing was added up for {}", name())))?;
            let norm = found.sqr().and_then(|x| x.sum_all()).and_then(|x| x.to_scalar::<f32>());
            if !norm.map_err(checkpoint::Error::from)?.is_finite() {
                return Err(Error::numerical(format!("{} is not finite", name())));
            }
        }
        Ok(())
    }

    /// Puts the sums into a new folder.
    pub(super) fn write(&self, folder: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(folder).map_err(checkpoint::Error::io(folder))?;
        let pending = self.0.iter().map(|(&sum, numbers)| Pending {
            name: sum.name(),
            dtype: Dtype::F32,
            shape: numbers.dims().to_vec(),
            bytes: Box::new(move || narrow(&numbers.flatten_all()?.to_vec1::<f32>()?, Dtype::F32)),
        });
        write_safetensors(folder, pending.collect(), u64::MAX, || Ok(()))?;
        Ok(())
    }

    /// Reads them again.
    pub(super) fn read(
        folder: &Path,
        needs: Needs,
        projections: &[Projection],
        config: &Config,
    ) -> Result<Self, Error> {
        let weights = Weights::open(folder)?;
        let read = |sum: Sum| Ok((sum, weights.tensor(&sum.name(), &sum.shape(config), &candle_core::Device::Cpu)?));
        Sum::all(needs, projections).into_iter().map(read).collect::<Result<_, Error>>().map(Self)
    }
}

/// Adds a layer's activations and gradients of one group of windows to its sums.
pub(super) struct Sink<'a> {
    pub(super) layer: usize,
    pub(super) projections: &'a [Projection],
    pub(super) needs: Needs,
    pub(super) frames: Option<&'a Frames>,
    pub(super) batch: Batch,
    pub(super) sums: &'a mut LayerSums,
}

impl GradientSink for Sink<'_> {
    fn accept(&mut self, projection: Projection, x: &Tensor, gy: &Tensor) -> DeviceResult<()> {
        if !self.projections.contains(&projection) {
            return Ok(());
        }
        if self.needs.gradient {
            // [out, tokens] · [tokens, in]
            self.sums.add(Sum::Gradient(projection), gy.t()?.matmul(x)?)?;
        }
        if self.needs.input && is_first_of_group(projection, self.projections) {
            self.sums.add_gram(Sum::Input(projection.input_group()), x)?;
        }
        if self.needs.output {
            self.sums.add_gram(Sum::Output(projection), gy)?;
        }
        if let Some((u, v)) = self.frames.and_then(|frames| frames.get(&(self.layer, projection))) {
            // ∂L/∂σ_k of a window: the sum over its tokens of (u_kᵀ g)(v_kᵀ x).
            let products = (gy.matmul(u)? * x.matmul(v)?)?;
            let windows = products.reshape((self.batch.windows, self.batch.length, ()))?.sum(1)?;
            self.sums.add(Sum::Squares(projection), windows.sqr()?.sum(0)?)?;
        }
        Ok(())
    }
}
