//! Stage 3: singular value decomposition, scores, selection, factors (section 3.2 of the paper).
//!
//! W [out, in] = U diag(σ) Vᵀ, G = ∂L/∂W. Of the r = min(out, in) triplets the k best are kept.

use serde::{Deserialize, Serialize};

use super::{
    Error,
    budget::{Keep, rank, stays_dense},
};
use crate::{
    job::spec::{Score, SigmaSplit},
    linalg::{Svd, thin_svd},
};

/// The settings of this stage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) keep: Keep,
    pub(super) score: Score,
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

/// The two factors of a matrix, row-major.
pub(super) struct FactorNumbers {
    /// k.
    pub(super) rank: usize,
    /// InLinear [k, in].
    pub(super) input: Vec<f32>,
    /// OutLinear [out, k].
    pub(super) output: Vec<f32>,
}

/// Decomposes one matrix and keeps what matters. `gradient` is G, row-major [out, in].
pub(super) fn factorize(
    name: &str,
    shape: [usize; 2],
    weight: &[f32],
    gradient: Option<&[f32]>,
    rule: Rule,
) -> Result<(Triplets, Option<FactorNumbers>), Error> {
    let [out, input] = shape;
    let svd = thin_svd(weight, out, input).map_err(|error| Error::numerical(format!("{name}: {error}")))?;
    let sigma_gradient = gradient.map(|gradient| svd.sigma_gradient(gradient));
    let score = score(rule.score, &svd.sigma, sigma_gradient.as_deref())
        .ok_or_else(|| Error::internal(format!("{name}: no gradient")))?;
    if !score.iter().all(|score| score.is_finite()) {
        return Err(Error::numerical(format!("{name}: a triplet's score is not finite")));
    }
    let order = descending(&score);
    let k = match rule.keep {
        Keep::Ratio(ratio) => rank(ratio, shape),
        Keep::Threshold(share) => prefix(&score, &order, share),
    }
    .min(svd.len());
    let dense = stays_dense(k, shape);
    let mut kept = if dense { Vec::new() } else { order[..k].to_vec() };
    kept.sort_unstable();
    let factors = (!dense).then(|| factors(&svd, &kept, rule.split));
    Ok((Triplets { name: name.to_owned(), shape, sigma: svd.sigma, sigma_gradient, score, kept }, factors))
}

/// What each triplet is worth; `None` when the score needs gradients and there are none.
fn score(score: Score, sigma: &[f64], gradient: Option<&[f64]>) -> Option<Vec<f64>> {
    match score {
        Score::Magnitude => Some(sigma.to_vec()),
        Score::Gradient => gradient.map(|gradient| gradient.iter().map(|g| g.abs()).collect()),
        Score::Taylor => gradient.map(|gradient| sigma.iter().zip(gradient).map(|(s, g)| (s * g).abs()).collect()),
    }
}

/// Whether a score is computed from gradients.
pub(super) const fn needs_gradients(score: Score) -> bool {
    match score {
        Score::Taylor | Score::Gradient => true,
        Score::Magnitude => false,
    }
}

/// Indices by score, best first; the larger singular value wins a tie.
fn descending(score: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..score.len()).collect();
    order.sort_by(|&a, &b| score[b].total_cmp(&score[a]).then(a.cmp(&b)));
    order
}

/// Length of the shortest prefix of `order` whose scores sum to at least `share` of all.
fn prefix(score: &[f64], order: &[usize], share: f64) -> usize {
    let wanted = share * score.iter().sum::<f64>();
    let mut sum = 0.0;
    let enough = order.iter().position(|&index| {
        sum += score[index];
        sum >= wanted
    });
    enough.map_or(order.len(), |last| last + 1)
}

fn factors(svd: &Svd, kept: &[usize], split: SigmaSplit) -> FactorNumbers {
    let k = kept.len();
    let mut input = Vec::with_capacity(k * svd.columns);
    let mut output = vec![0.0; svd.rows * k];
    for (column, &index) in kept.iter().enumerate() {
        let sigma = svd.sigma[index];
        let (left, right) = match split {
            SigmaSplit::Both => (sigma.sqrt(), sigma.sqrt()),
            SigmaSplit::Left => (sigma, 1.0),
            SigmaSplit::Right => (1.0, sigma),
        };
        input.extend(svd.v(index).iter().map(|v| (right * v) as f32));
        for (row, u) in svd.u(index).iter().enumerate() {
            output[row * k + column] = (left * u) as f32;
        }
    }
    FactorNumbers { rank: k, input, output }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(keep: Keep, split: SigmaSplit) -> Rule {
        Rule { keep, score: Score::Magnitude, split }
    }

    /// A matrix with singular values 8, 4, 2, 1 on the diagonal.
    fn diagonal() -> Vec<f32> {
        (0..16).map(|at| if at % 5 == 0 { 8.0 / (1 << (at / 5)) as f32 } else { 0.0 }).collect()
    }

    #[test]
    fn every_split_multiplies_to_the_same_product() {
        for split in [SigmaSplit::Both, SigmaSplit::Left, SigmaSplit::Right] {
            let (triplets, factors) = factorize("w", [4, 4], &diagonal(), None, rule(Keep::Ratio(1.0), split)).unwrap();
            let factors = factors.unwrap();
            assert_eq!(triplets.kept, [0, 1]);
            let product = |row: usize, column: usize| -> f32 {
                (0..2).map(|k| factors.output[row * 2 + k] * factors.input[k * 4 + column]).sum()
            };
            assert!(
                (product(0, 0) - 8.0).abs() < 1e-5 && (product(1, 1) - 4.0).abs() < 1e-5 && product(2, 2).abs() < 1e-5
            );
        }
    }

    #[test]
    fn a_threshold_that_needs_too_many_triplets_leaves_the_matrix_dense() {
        let (triplets, factors) =
            factorize("w", [4, 4], &diagonal(), None, rule(Keep::Threshold(0.99), SigmaSplit::Both)).unwrap();
        assert!(factors.is_none() && triplets.kept.is_empty());
    }

    #[test]
    fn taylor_weighs_the_gradient_by_sigma() {
        // ∂L/∂σ picks the last triplet: G is large where σ is small.
        let gradient: Vec<f32> = (0..16).map(|at| if at == 15 { 100.0 } else { 0.0 }).collect();
        let rule = Rule { keep: Keep::Ratio(0.5), score: Score::Taylor, split: SigmaSplit::Both };
        assert_eq!(factorize("w", [4, 4], &diagonal(), Some(&gradient), rule).unwrap().0.kept, [3]);
    }

    proptest! {
        #[test]
        fn a_prefix_reaches_its_share_and_no_shorter_one_does(score in prop::collection::vec(0.0_f64..10.0, 1..40), share in 0.01_f64..1.0) {
            let order = descending(&score);
            let k = prefix(&score, &order, share);
            let sum = |k: usize| order[..k].iter().map(|&index| score[index]).sum::<f64>();
            let total = score.iter().sum::<f64>();
            prop_assert!(sum(k) >= share * total * (1.0 - 1e-12));
            prop_assert!(k == 0 || k == 1 || sum(k - 1) < share * total * (1.0 + 1e-12));
        }
    }
}
