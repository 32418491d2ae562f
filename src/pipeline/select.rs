//! Which triplets are kept: of each matrix the same share, or of all matrices together the most worth per parameter.

use super::{
    budget::{Keep, rank, stays_dense},
    factorize::Triplets,
};

/// Marks the kept triplets of all matrices; none of a matrix that stays dense.
pub(super) fn select(keep: Keep, matrices: &mut [&mut Triplets]) {
    let counts = match keep {
        Keep::Budget(budget) => global(budget, matrices),
        Keep::Ratio(_) | Keep::Threshold(_) => matrices.iter().map(|matrix| uniform(keep, matrix)).collect(),
    };
    for (matrix, count) in matrices.iter_mut().zip(counts) {
        matrix.kept = best(matrix, count.unwrap_or(0));
    }
}

/// The triplets of a matrix, ascending, that may be kept once all matrices are known.
pub(super) fn eligible(keep: Keep, matrix: &Triplets) -> Vec<usize> {
    let count = match keep {
        Keep::Budget(_) => (matrix.numbers() / matrix.cost()) as usize,
        Keep::Ratio(_) | Keep::Threshold(_) => uniform(keep, matrix).unwrap_or(0),
    };
    best(matrix, count.min(matrix.sigma.len()))
}

fn best(matrix: &Triplets, count: usize) -> Vec<usize> {
    let mut kept = descending(&matrix.score);
    kept.truncate(count);
    kept.sort_unstable();
    kept
}

/// How many of a matrix are kept on its own; `None` when it stays dense.
fn uniform(keep: Keep, matrix: &Triplets) -> Option<usize> {
    let count = match keep {
        Keep::Ratio(ratio) => rank(ratio, matrix.shape),
        Keep::Threshold(share) => prefix(&matrix.score, &descending(&matrix.score), share),
        Keep::Budget(_) => return None,
    };
    let count = count.min(matrix.sigma.len());
    (!stays_dense(count, matrix.shape)).then_some(count)
}

/// Spends `budget` numbers on the triplets with the highest score per number, at least one of each matrix. A matrix that
/// would get as many numbers as it has stays dense, and what it does not need is spent on the others.
fn global(budget: u64, matrices: &[&mut Triplets]) -> Vec<Option<usize>> {
    let mut candidates: Vec<(f64, usize)> = Vec::new();
    for (index, matrix) in matrices.iter().enumerate() {
        candidates.extend(descending(&matrix.score).iter().map(|&k| (matrix.score[k] / matrix.cost() as f64, index)));
    }
    // Stable, so that triplets of one worth stay in model order.
    candidates.sort_by(|a, b| b.0.total_cmp(&a.0));
    let counts = |taken: usize| {
        let mut counts = vec![0_u64; matrices.len()];
        for &(_, index) in &candidates[..taken] {
            counts[index] += 1;
        }
        counts.into_iter().map(|count| count.max(1)).collect::<Vec<_>>()
    };
    let cost = |index: usize, count: u64| (count * matrices[index].cost()).min(matrices[index].numbers());
    let total = |counts: &[u64]| counts.iter().enumerate().map(|(index, &count)| cost(index, count)).sum::<u64>();
    let (mut fits, mut exceeds) = (0, candidates.len() + 1);
    while exceeds - fits > 1 {
        let middle = usize::midpoint(fits, exceeds);
        if total(&counts(middle)) <= budget { fits = middle } else { exceeds = middle }
    }
    let mut counts = counts(fits);
    let mut left = budget.saturating_sub(total(&counts));
    for &(_, index) in &candidates[fits..] {
        let more = cost(index, counts[index] + 1) - cost(index, counts[index]);
        if more <= left {
            (counts[index], left) = (counts[index] + 1, left - more);
        }
    }
    let smaller = |(index, &count): (usize, &u64)| {
        (count * matrices[index].cost() < matrices[index].numbers()).then_some(count as usize)
    };
    counts.iter().enumerate().map(smaller).collect()
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matrix(shape: [usize; 2], score: &[f64]) -> Triplets {
        let sigma = score.iter().map(|score| score.sqrt()).collect();
        Triplets { name: "w".into(), shape, sigma, sigma_gradient: None, score: score.to_vec(), kept: Vec::new() }
    }

    fn kept(budget: u64, mut matrices: Vec<Triplets>) -> Vec<Vec<usize>> {
        select(Keep::Budget(budget), &mut matrices.iter_mut().collect::<Vec<_>>());
        matrices.into_iter().map(|matrix| matrix.kept).collect()
    }

    #[test]
    fn one_budget_goes_where_a_number_is_worth_most() {
        // Triplets of the first cost 20 numbers, of the second 8: 40 for 20 numbers are more than 12 for 8.
        let matrices = || vec![matrix([10, 10], &[100.0, 40.0, 1.0]), matrix([4, 4], &[30.0, 12.0, 0.1])];
        assert_eq!(kept(28, matrices()), [vec![0], vec![0]]);
        assert_eq!(kept(48, matrices()), [vec![0, 1], vec![0]]);
    }

    #[test]
    fn a_matrix_whose_share_would_exceed_it_stays_dense_and_gives_the_rest_back() {
        // Two triplets of the 4 x 4 matrix are its 16 numbers: it stays whole, and 40 of 56 are left for the other.
        let kept = kept(56, vec![matrix([10, 10], &[3.0, 2.0, 1.0]), matrix([4, 4], &[90.0, 80.0, 70.0, 60.0])]);
        assert_eq!(kept, [vec![0, 1], vec![]]);
    }

    #[test]
    fn every_matrix_keeps_something() {
        assert_eq!(kept(8 + 20, vec![matrix([10, 10], &[0.0, 0.0]), matrix([4, 4], &[9.0, 8.0])]), [vec![0], vec![0]]);
    }

    #[test]
    fn a_threshold_that_needs_too_many_triplets_leaves_the_matrix_dense() {
        let mut dense = matrix([4, 4], &[8.0, 4.0, 2.0, 1.0]);
        select(Keep::Threshold(0.99), &mut [&mut dense]);
        assert!(dense.kept.is_empty() && eligible(Keep::Threshold(0.99), &dense).is_empty());
    }

    proptest! {
        #[test]
        fn a_budget_is_kept_and_hardly_anything_of_it_is_left(
            scores in prop::collection::vec(prop::collection::vec(0.0_f64..10.0, 12), 1..6),
            share in 0.3_f64..0.95,
        ) {
            let mut matrices: Vec<Triplets> = scores.iter().map(|score| matrix([12, 20], score)).collect();
            let all: u64 = matrices.iter().map(Triplets::numbers).sum();
            let budget = (share * all as f64) as u64;
            select(Keep::Budget(budget), &mut matrices.iter_mut().collect::<Vec<_>>());
            let cost = |matrix: &Triplets| match matrix.kept.len() as u64 {
                0 => matrix.numbers(),
                count => count * matrix.cost(),
            };
            let spent: u64 = matrices.iter().map(cost).sum();
            prop_assert!(spent <= budget && spent + 32 > budget, "{spent} of {budget}");
        }

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
