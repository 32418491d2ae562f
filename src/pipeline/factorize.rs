//! Stage 3: singular value decomposition, scores, factors (section 3.2 of the paper).
//!
//! W [out, in] = U diag(σ) Vᵀ, G = ∂L/∂W; in the whitened bases the columns of U and V are orthogonal in
//! the norms of A and C instead. Of the r = min(out, in) triplets the k best are kept, see [`super::select`].

use serde::{Deserialize, Serialize};

use super::{Error, budget::Keep};
use crate::{
    job::spec::{Basis, Score, SigmaSplit},
    linalg::{Svd, SvdError, Weighting, thin_svd, weighted_svd, weighted_values},
};

/// The settings of this stage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) keep: Keep,
    pub(super) score: Score,
    pub(super) basis: Basis,
    pub(super) split: SigmaSplit,
}

/// What is known of a matrix's triplets, in descending order of σ; one entry of `singular_values.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Triplets {
    /// Module name.
    pub(super) name: String,
    /// `[out, in]`.
    pub(super) shape: [usize; 2],
    /// σ.
    pub(super) sigma: Vec<f64>,
    /// ∂L/∂σ; null for scores that need no gradient.
    pub(super) sigma_gradient: Option<Vec<f64>>,
    /// What each is worth.
    pub(super) score: Vec<f64>,
    /// Indices of the kept, ascending; empty when the matrix stays dense.
    pub(super) kept: Vec<usize>,
}

impl Triplets {
    /// Scored; none is kept yet.
    fn new(
        name: &str,
        shape: [usize; 2],
        sigma: Vec<f64>,
        sigma_gradient: Option<Vec<f64>>,
        squares: Option<&[f32]>,
        score: Score,
    ) -> Result<Self, Error> {
        let score = scores(score, &sigma, sigma_gradient.as_deref(), squares)
            .ok_or_else(|| Error::internal(format!("{name}: no gradient")))?;
        if !score.iter().all(|score| score.is_finite()) {
            return Err(Error::numerical(format!("{name}: a triplet's score is not finite")));
        }
        Ok(Self { name: name.to_owned(), shape, sigma, sigma_gradient, score, kept: Vec::new() })
    }

    /// Numbers in the matrix.
    pub(super) const fn numbers(&self) -> u64 {
        (self.shape[0] * self.shape[1]) as u64
    }

    /// Numbers that one triplet costs.
    pub(super) const fn cost(&self) -> u64 {
        (self.shape[0] + self.shape[1]) as u64
    }

    /// ½ Σ σ² of the triplets that are not kept: in the two-sided basis the rise of the loss per token, to second order.
    pub(super) fn half_energy_lost(&self) -> f64 {
        if self.kept.is_empty() {
            return 0.0;
        }
        let energy = |sigma: f64| sigma * sigma / 2.0;
        let all: f64 = self.sigma.iter().map(|&sigma| energy(sigma)).sum();
        (all - self.kept.iter().map(|&k| energy(self.sigma[k])).sum::<f64>()).max(0.0)
    }
}

/// The two factors of a matrix, row-major.
pub(super) struct FactorNumbers {
    /// k.
    pub(super) rank: usize,
    /// InLinear [k, in].
    pub(super) input: Vec<f32>,
    /// OutLinear [out, k].
    pub(super) output: Vec<f32>,
}

/// What the passes over the calibration text say of a matrix; whatever the basis and the score need.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence<'a> {
    /// G, row-major [out, in].
    pub(super) gradient: Option<&'a [f32]>,
    /// Σ over the windows of (∂L/∂σ)² [r].
    pub(super) squares: Option<&'a [f32]>,
    /// The factors of A and C.
    pub(super) weighting: Weighting<'a>,
}

/// Decomposes one matrix and scores its triplets; none is kept yet.
pub(super) fn decompose(
    name: &str,
    shape: [usize; 2],
    weight: &[f32],
    evidence: Evidence<'_>,
    score: Score,
) -> Result<(Triplets, Svd), Error> {
    let [out, input] = shape;
    let svd = match evidence.weighting {
        Weighting { left: None, right: None, .. } => thin_svd(weight, out, input),
        weighting => weighted_svd(weight, shape, weighting, usize::MAX),
    };
    let svd = svd.map_err(|error| named(name, error))?;
    let sigma_gradient = evidence.gradient.map(|gradient| svd.sigma_gradient(gradient));
    Ok((Triplets::new(name, shape, svd.sigma.clone(), sigma_gradient, evidence.squares, score)?, svd))
}

/// As [`decompose`] without the vectors, for scores that need singular values only.
pub(super) fn spectrum(
    name: &str,
    shape: [usize; 2],
    weight: &[f32],
    weighting: Weighting<'_>,
    score: Score,
) -> Result<Triplets, Error> {
    let sigma = weighted_values(weight, shape, weighting);
    Triplets::new(name, shape, sigma.map_err(|error| named(name, error))?, None, None, score)
}

/// A decomposition that failed, with the matrix's name.
pub(super) fn named(name: &str, error: SvdError) -> Error {
    Error::numerical(format!("{name}: {error}"))
}

/// What each triplet is worth; `None` when the score needs gradients and there are none.
fn scores(score: Score, sigma: &[f64], gradient: Option<&[f64]>, squares: Option<&[f32]>) -> Option<Vec<f64>> {
    match score {
        Score::Magnitude => Some(sigma.to_vec()),
        Score::Energy => Some(sigma.iter().map(|s| s * s).collect()),
        Score::Gradient => gradient.map(|gradient| gradient.iter().map(|g| g.abs()).collect()),
        Score::Taylor => gradient.map(|gradient| sigma.iter().zip(gradient).map(|(s, g)| (s * g).abs()).collect()),
        Score::Fisher => squares.map(|squares| sigma.iter().zip(squares).map(|(s, g)| s * s * f64::from(*g)).collect()),
    }
}

/// Some of a matrix's triplets, or none: which, ascending, and their vectors `u_k` [count, out] and `v_k` [count, in].
#[derive(Default)]
pub(super) struct Vectors {
    pub(super) indices: Vec<usize>,
    pub(super) left: Vec<f32>,
    pub(super) right: Vec<f32>,
}

impl Vectors {
    /// Those of `indices`.
    pub(super) fn of(svd: &Svd, indices: Vec<usize>) -> Self {
        let gather = |vector: fn(&Svd, usize) -> &[f64]| {
            indices.iter().flat_map(|&k| vector(svd, k).iter().map(|x| *x as f32)).collect()
        };
        Self { left: gather(Svd::u), right: gather(Svd::v), indices }
    }

    /// The factors that the kept triplets make; `None` when there are none.
    pub(super) fn factors(&self, triplets: &Triplets, split: SigmaSplit) -> Option<FactorNumbers> {
        let ([out, columns], k) = (triplets.shape, triplets.kept.len());
        let mut input = Vec::with_capacity(k * columns);
        let mut output = vec![0.0; out * k];
        for (column, &index) in triplets.kept.iter().enumerate() {
            let at = self.indices.binary_search(&index).ok()?;
            let sigma = triplets.sigma[index];
            let (left, right) = match split {
                SigmaSplit::Both => (sigma.sqrt(), sigma.sqrt()),
                SigmaSplit::Left => (sigma, 1.0),
                SigmaSplit::Right => (1.0, sigma),
            };
            let scaled = |scale: f64, x: &f32| (scale * f64::from(*x)) as f32;
            input.extend(self.right[at * columns..(at + 1) * columns].iter().map(|v| scaled(right, v)));
            for (row, u) in self.left[at * out..(at + 1) * out].iter().enumerate() {
                output[row * k + column] = scaled(left, u);
            }
        }
        (k > 0).then_some(FactorNumbers { rank: k, input, output })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::select::select, *};

    /// A matrix with singular values 8, 4, 2, 1 on the diagonal.
    fn diagonal() -> Vec<f32> {
        (0..16).map(|at| if at % 5 == 0 { 8.0 / (1 << (at / 5)) as f32 } else { 0.0 }).collect()
    }

    fn half(evidence: Evidence<'_>, score: Score) -> (Triplets, Svd) {
        let (mut triplets, svd) = decompose("w", [4, 4], &diagonal(), evidence, score).unwrap();
        select(Keep::Ratio(0.9), &mut [&mut triplets]);
        (triplets, svd)
    }

    #[test]
    fn every_split_multiplies_to_the_same_product() {
        for split in [SigmaSplit::Both, SigmaSplit::Left, SigmaSplit::Right] {
            let (mut triplets, svd) = half(Evidence::default(), Score::Magnitude);
            triplets.kept = vec![0, 1];
            let factors = Vectors::of(&svd, vec![0, 1, 3]).factors(&triplets, split).unwrap();
            let product = |i: usize, j: usize| -> f32 {
                (0..2).map(|k| factors.output[i * 2 + k] * factors.input[k * 4 + j]).sum()
            };
            assert!((product(0, 0) - 8.0).abs() < 1e-5 && (product(1, 1) - 4.0).abs() < 1e-5, "{split:?}");
            assert!(product(2, 2).abs() < 1e-5 && product(0, 1).abs() < 1e-5);
        }
    }

    #[test]
    fn each_score_weighs_the_triplets_in_its_own_way() {
        // G is large where σ is small.
        let gradient: Vec<f32> = (0..16).map(|at| if at == 15 { 100.0 } else { 0.0 }).collect();
        let evidence =
            Evidence { gradient: Some(&gradient), squares: Some(&[0.0, 9.0, 1.0, 1.0]), ..Evidence::default() };
        assert_eq!(half(evidence, Score::Taylor).0.kept, [3]);
        assert_eq!(half(evidence, Score::Gradient).0.kept, [3]);
        assert_eq!(half(evidence, Score::Fisher).0.kept, [1]);
        assert_eq!(half(evidence, Score::Energy).0.kept, [0]);
        assert!((half(evidence, Score::Energy).0.half_energy_lost() - 10.5).abs() < 1e-6, "½ (16 + 4 + 1)");
    }

    #[test]
    fn the_taylor_score_takes_the_sigma_gradient_of_a_weighted_basis() {
        // C makes the last input loud: in that basis its triplet comes first, and W still moves by u vᵀ with σ.
        let mut c = vec![0.0; 16];
        for (at, loudness) in [1.0, 1.0, 1.0, 400.0].into_iter().enumerate() {
            c[at * 5] = loudness;
        }
        let input = crate::linalg::Cholesky::new(&c, 1.0, 1e-9).unwrap();
        let gradient: Vec<f32> = (0..16).map(|at| if at % 5 == 0 { 1.0 } else { 0.0 }).collect();
        let weighting = Weighting { right: Some(&input), ..Weighting::default() };
        let evidence = Evidence { gradient: Some(&gradient), weighting, ..Evidence::default() };
        let (triplets, _) = decompose("w", [4, 4], &diagonal(), evidence, Score::Taylor).unwrap();
        assert!((triplets.sigma[0] - 20.0).abs() < 1e-5, "{:?}", triplets.sigma);
        // σ ∂L/∂σ is the matrix's own share of ⟨G, W⟩, in whatever basis.
        assert!((triplets.score[0] - 1.0).abs() < 1e-5 && (triplets.score.iter().sum::<f64>() - 15.0).abs() < 1e-4);
    }
}
