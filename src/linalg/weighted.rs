//! The singular value decomposition of a matrix whose errors count more in some directions than in others.

use faer::{
    Accum, Mat, MatMut as FaerMut, MatRef as FaerRef, Par, Side,
    linalg::{
        matmul::triangular::{self, BlockStructure},
        triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place},
    },
};

use super::svd::{Svd, SvdError, leading, singular_values};

/// How often a matrix that is not positive definite gets a hundred times the regularisation.
const TRIALS: usize = 3;

/// L [n, n], lower triangular, of a regularised symmetric matrix `M + ε · mean(diag M) · I = L Lᵀ`.
#[derive(Clone, Debug)]
pub struct Cholesky(Mat<f64>);

impl Cholesky {
    /// Decomposes `scale` · `sums`, of which the lower triangle of the row-major [n, n] numbers is read. ε is
    /// `regularisation`, or more where rounding left the matrix with negative eigenvalues; a matrix of zeros counts as the
    /// identity, since it prefers no direction.
    ///
    /// # Errors
    /// [`SvdError`] when the numbers are not finite, or far from any positive definite matrix.
    pub fn new(sums: &[f32], scale: f64, regularisation: f64) -> Result<Self, SvdError> {
        let n = sums.len().isqrt();
        let m = Mat::from_fn(n, n, |i, j| scale * f64::from(sums[i.max(j) * n + i.min(j)]));
        let mean = m.diagonal().column_vector().sum() / n.max(1) as f64;
        if !mean.is_finite() || !sums.iter().all(|x| x.is_finite()) {
            return Err(SvdError::NotFinite);
        }
        if mean <= 0.0 {
            return Ok(Self(Mat::identity(n, n)));
        }
        let mut epsilon = regularisation;
        for _ in 0..TRIALS {
            let regular = Mat::from_fn(n, n, |i, j| if i == j { m[(i, j)] + epsilon * mean } else { m[(i, j)] });
            if let Ok(decomposed) = regular.llt(Side::Lower) {
                return Ok(Self(decomposed.L().to_owned()));
            }
            epsilon *= 100.0;
        }
        Err(SvdError::NoConvergence)
    }

    /// `vectors` := L⁻ᵀ `vectors`, where [n, count] is one vector after the other.
    fn solve_transposed(&self, vectors: &mut [f64]) {
        let n = self.0.nrows();
        let count = vectors.len() / n.max(1);
        let vectors = FaerMut::from_column_major_slice_mut(vectors, n, count);
        solve_upper_triangular_in_place(self.0.transpose(), vectors, Par::Seq);
    }
}

/// T = R + K R⁻ᵀ [n, n]: what stands in R's place where a matrix is to be decomposed that gives of other inputs what W
/// gives of its own. With R Rᵀ = E[x′ x′ᵀ] and K = E[(x − x′) x′ᵀ], W T = W′ R for the least-squares matrix
/// W′ = W + W K (R Rᵀ)⁻¹, whose outputs of x′ come closest to W x; what regularises R keeps W′ at W where x′ says little.
#[derive(Clone, Debug)]
pub struct Target(Mat<f64>);

impl Target {
    /// Of `right` = R and K = `scale` · `cross`, row-major [n, n].
    ///
    /// # Errors
    /// [`SvdError::NotFinite`] when the numbers are not finite.
    pub fn new(right: &Cholesky, cross: &[f32], scale: f64) -> Result<Self, SvdError> {
        let Cholesky(right) = right;
        if !cross.iter().all(|x| x.is_finite()) {
            return Err(SvdError::NotFinite);
        }
        // R⁻¹ Kᵀ, the transpose of what is added.
        let n = right.nrows();
        let mut change = Mat::from_fn(n, n, |i, j| scale * f64::from(cross[j * n + i]));
        solve_lower_triangular_in_place(right.as_ref(), change.as_mut(), Par::Seq);
        Ok(Self(right + change.transpose()))
    }
}

/// The norm ‖Lᵀ W R‖ in which the closest matrices are looked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weighting<'a> {
    /// L [rows, rows].
    pub left: Option<&'a Cholesky>,
    /// R [columns, columns].
    pub right: Option<&'a Cholesky>,
    /// Decomposes W′ = W T R⁻¹ in place of W.
    pub target: Option<&'a Target>,
}

/// Decomposes the row-major `matrix` W [rows, columns] in the norm ‖Lᵀ W R‖: Lᵀ W R = U diag(σ) Vᵀ gives W = P diag(σ) Qᵀ
/// with P = L⁻ᵀ U and Q = R⁻ᵀ V, and of all matrices of rank k the first k triplets are the closest to W in that norm. P and Q
/// take the places of U and V in [`Svd`], which holds the first `count` triplets, or all if they are fewer.
///
/// # Errors
/// As [`super::thin_svd`].
pub fn weighted_svd(
    matrix: &[f32],
    [rows, columns]: [usize; 2],
    weighting: Weighting<'_>,
    count: usize,
) -> Result<Svd, SvdError> {
    let mut svd = leading(&weighted(matrix, [rows, columns], weighting)?, count)?;
    if let Some(left) = weighting.left {
        left.solve_transposed(&mut svd.left);
    }
    if let Some(right) = weighting.right {
        right.solve_transposed(&mut svd.right);
    }
    Ok(svd)
}

/// σ of [`weighted_svd`], for whoever needs no vectors: a third of the time.
///
/// # Errors
/// As [`super::thin_svd`].
pub fn weighted_values(matrix: &[f32], shape: [usize; 2], weighting: Weighting<'_>) -> Result<Vec<f64>, SvdError> {
    singular_values(&weighted(matrix, shape, weighting)?)
}

/// Lᵀ W R, or Lᵀ W T.
fn weighted(
    matrix: &[f32],
    [rows, columns]: [usize; 2],
    Weighting { left, right, target }: Weighting<'_>,
) -> Result<Mat<f64>, SvdError> {
    if !matrix.iter().all(|x| x.is_finite()) {
        return Err(SvdError::NotFinite);
    }
    let mut weighted = Mat::from_fn(rows, columns, |i, j| f64::from(matrix[i * columns + j]));
    if let Some(Cholesky(left)) = left {
        weighted = product((left.transpose(), BlockStructure::TriangularUpper), (weighted.as_ref(), RECTANGULAR));
    }
    match (target, right) {
        (Some(Target(target)), _) => Ok(weighted * target),
        (None, Some(Cholesky(right))) => {
            Ok(product((weighted.as_ref(), RECTANGULAR), (right.as_ref(), BlockStructure::TriangularLower)))
        }
        (None, None) => Ok(weighted),
    }
}

const RECTANGULAR: BlockStructure = BlockStructure::Rectangular;

/// A product of which a side is triangular: half the work of a full one.
fn product(
    (left, of_left): (FaerRef<'_, f64>, BlockStructure),
    (right, of_right): (FaerRef<'_, f64>, BlockStructure),
) -> Mat<f64> {
    let mut product = Mat::zeros(left.nrows(), right.ncols());
    let place = product.as_mut();
    triangular::matmul(place, RECTANGULAR, Accum::Replace, left, of_left, right, of_right, 1.0, Par::Seq);
    product
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    fn random(rows: usize, columns: usize, seed: u64) -> Vec<f32> {
        let mut rng = StdRng::seed_from_u64(seed);
        (0..rows * columns).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    fn matrix(numbers: &[f32], columns: usize) -> Mat<f64> {
        Mat::from_fn(numbers.len() / columns, columns, |i, j| f64::from(numbers[i * columns + j]))
    }

    /// Σ x xᵀ of `tokens` random vectors of n numbers, as the row-major product Xᵀ X.
    fn moments(tokens: usize, n: usize, seed: u64) -> Vec<f32> {
        let x = matrix(&random(tokens, n, seed), n);
        let product = x.transpose() * &x;
        (0..n * n).map(|at| product[(at / n, at % n)] as f32).collect()
    }

    fn truncated(svd: &Svd, k: usize) -> Mat<f64> {
        Mat::from_fn(svd.rows, svd.columns, |i, j| (0..k).map(|at| svd.sigma[at] * svd.u(at)[i] * svd.v(at)[j]).sum())
    }

    /// The square root of a symmetric matrix by its eigenvectors: another way than the one that is tested.
    fn root(m: &Mat<f64>) -> Mat<f64> {
        let eigen = m.self_adjoint_eigen(Side::Lower).unwrap();
        let roots =
            Mat::from_fn(
                m.nrows(),
                m.nrows(),
                |i, j| {
                    if i == j { eigen.S().column_vector()[i].max(0.0).sqrt() } else { 0.0 }
                },
            );
        eigen.U() * roots * eigen.U().transpose()
    }

    #[test]
    fn all_triplets_multiply_back_to_the_matrix() {
        for (m, n) in [(9, 5), (5, 9), (8, 8)] {
            let w = random(m, n, 1);
            let (a, c) = (moments(40, m, 2), moments(40, n, 3));
            let (a, c) = (Cholesky::new(&a, 0.1, 1e-6).unwrap(), Cholesky::new(&c, 0.1, 1e-6).unwrap());
            for (left, right) in [(None, None), (None, Some(&c)), (Some(&a), Some(&c))] {
                let weighting = Weighting { left, right, target: None };
                let svd = weighted_svd(&w, [m, n], weighting, usize::MAX).unwrap();
                assert!(svd.sigma.is_sorted_by(|x, y| x >= y));
                let values = weighted_values(&w, [m, n], weighting).unwrap();
                assert!(values.iter().zip(&svd.sigma).all(|(a, b)| (a - b).abs() < 1e-7 * svd.sigma[0]));
                let distance = (truncated(&svd, svd.len()) - matrix(&w, n)).norm_l2();
                assert!(distance < 1e-9, "{m}x{n}: {distance}");
            }
        }
    }

    #[test]
    fn the_first_triplets_are_the_closest_in_the_weighted_norm() {
        let (m, n) = (7, 6);
        let w = matrix(&random(m, n, 1), n);
        let (a, c) = (moments(50, m, 2), moments(50, n, 3));
        let (left, right) = (Cholesky::new(&a, 1.0, 0.0).unwrap(), Cholesky::new(&c, 1.0, 0.0).unwrap());
        let weighting = Weighting { left: Some(&left), right: Some(&right), target: None };
        let svd = weighted_svd(&random(m, n, 1), [m, n], weighting, usize::MAX).unwrap();
        let (root_a, root_c) = (root(&matrix(&a, m)), root(&matrix(&c, n)));
        let direct = (&root_a * &w * &root_c).thin_svd().unwrap();
        for (k, expected) in direct.S().column_vector().iter().enumerate() {
            assert!((svd.sigma[k] / expected - 1.0).abs() < 1e-6, "σ {k}: {} and {expected}", svd.sigma[k]);
            // What k triplets leave over is what no matrix of rank k can avoid (Eckart and Young).
            let error = (&root_a * (&w - truncated(&svd, k)) * &root_c).norm_l2();
            let unavoidable = svd.sigma[k..].iter().map(|s| s * s).sum::<f64>().sqrt();
            assert!((error - unavoidable).abs() < 1e-5 * svd.sigma[0], "rank {k}: {error} and {unavoidable}");
            // Those that are asked for are the first of all.
            let first = weighted_svd(&random(m, n, 1), [m, n], weighting, k).unwrap();
            assert_eq!((first.len(), &*first.sigma), (k, &svd.sigma[..k]));
            assert!((truncated(&first, k) - truncated(&svd, k)).norm_l2() < 1e-9);
        }
    }

    #[test]
    fn fewer_tokens_than_features_and_dead_features_are_no_obstacle() {
        let (m, n) = (12, 20);
        let mut c = moments(4, n, 3);
        for dead in 0..n {
            (c[5 * n + dead], c[dead * n + 5]) = (0.0, 0.0);
        }
        let right = Cholesky::new(&c, 0.25, 1e-6).unwrap();
        let w = random(m, n, 1);
        let svd =
            weighted_svd(&w, [m, n], Weighting { right: Some(&right), ..Weighting::default() }, usize::MAX).unwrap();
        assert!(svd.left.iter().chain(&svd.right).chain(&svd.sigma).all(|x| x.is_finite()));
        // Four tokens span four directions: four triplets give all their outputs.
        let lost = &(truncated(&svd, 4) - matrix(&w, n)) * root(&matrix(&c, n));
        assert!(lost.norm_l2() < 1e-2 * svd.sigma[0], "{}", lost.norm_l2());
    }

    /// W′ = W T R⁻¹.
    fn retargeted(w: &[f32], right: &Cholesky, cross: &[f32], scale: f64) -> Mat<f64> {
        let n = right.0.nrows();
        let Target(target) = Target::new(right, cross, scale).unwrap();
        let mut transposed = (matrix(w, n) * target).transpose().to_owned();
        solve_upper_triangular_in_place(right.0.transpose(), transposed.as_mut(), Par::Seq);
        transposed.transpose().to_owned()
    }

    #[test]
    fn what_is_decomposed_for_other_inputs_is_the_least_squares_solution() {
        let (m, n, tokens) = (5, 6, 40);
        let (w, x, renewed) = (random(m, n, 1), random(tokens, n, 2), random(tokens, n, 3));
        let (x, renewed) = (matrix(&x, n), matrix(&renewed, n));
        let row_major = |product: Mat<f64>| -> Vec<f32> {
            product.row_iter().flat_map(|row| row.iter().map(|x| *x as f32).collect::<Vec<_>>()).collect()
        };
        let cross = row_major((&x - &renewed).transpose() * &renewed);
        let right = Cholesky::new(&row_major(renewed.transpose() * &renewed), 0.1, 1e-12).unwrap();
        // Another way: the pseudo-inverse of X′.
        let direct =
            (renewed.thin_svd().unwrap().pseudoinverse() * &x * matrix(&w, n).transpose()).transpose().to_owned();
        let distance = (retargeted(&w, &right, &cross, 0.1) - &direct).norm_l2();
        assert!(distance < 1e-5, "{distance}");
        let left = Cholesky::new(&moments(50, m, 4), 1.0, 0.0).unwrap();
        let target = Target::new(&right, &cross, 0.1).unwrap();
        let weighting = Weighting { left: Some(&left), right: Some(&right), target: Some(&target) };
        let all = weighted_svd(&w, [m, n], weighting, usize::MAX).unwrap();
        let distance = (truncated(&all, all.len()) - direct).norm_l2();
        assert!(distance < 1e-5, "{distance}");
    }

    #[test]
    fn a_matrix_stays_where_other_inputs_say_nothing() {
        // Fewer tokens than features, and one of them dead: along what no token has, W is as it was.
        let (m, n, tokens) = (4, 9, 3);
        let (w, mut renewed) = (random(m, n, 1), random(tokens, n, 3));
        (0..tokens).for_each(|token| renewed[token * n + 8] = 0.0);
        let renewed = matrix(&renewed, n);
        let c: Vec<f32> = (0..n * n).map(|at| (renewed.transpose() * &renewed)[(at / n, at % n)] as f32).collect();
        let right = Cholesky::new(&c, 1.0, 1e-4).unwrap();
        let same = retargeted(&w, &right, &vec![0.0; n * n], 1.0) - matrix(&w, n);
        assert!(same.norm_max() < 1e-12);
        let change = retargeted(&w, &right, &c, 1.0) - matrix(&w, n);
        assert!(change.norm_max() > 0.1 && change.col(8).iter().all(|x| x.abs() < 1e-6));
        assert_eq!(Target::new(&right, &vec![f32::NAN; n * n], 1.0).unwrap_err(), SvdError::NotFinite);
    }

    #[test]
    fn nothing_seen_prefers_no_direction_and_nonsense_is_refused() {
        let zeros = Cholesky::new(&[0.0; 9], 1.0, 1e-6).unwrap();
        let w = random(3, 3, 1);
        let decomposed =
            |right| weighted_svd(&w, [3, 3], Weighting { right, ..Weighting::default() }, usize::MAX).unwrap();
        let (plain, weighted) = (decomposed(None), decomposed(Some(&zeros)));
        assert!(plain.sigma.iter().zip(&weighted.sigma).all(|(a, b)| (a - b).abs() < 1e-12));
        assert_eq!(Cholesky::new(&[f32::NAN], 1.0, 1e-6).unwrap_err(), SvdError::NotFinite);
    }
}
