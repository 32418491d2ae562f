//! The singular value decomposition of a matrix whose errors count more in some directions than in others.

use faer::{
    Mat, MatMut as FaerMut, Par, Side,
    linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place},
};

use super::svd::{Svd, SvdError, singular_values, svd_of};

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

/// W + W K (R Rᵀ)⁻¹ [rows, columns], row-major, K = `scale` · `cross`. With K = E[(x − x′) x′ᵀ] and R Rᵀ = E[x′ x′ᵀ] that is the
/// least-squares matrix which gives of x′ what W gives of x; what regularises R keeps it at W where x′ says little.
///
/// # Errors
/// [`SvdError::NotFinite`] when the numbers are not finite.
pub fn retargeted(
    matrix: &[f32],
    columns: usize,
    cross: &[f32],
    scale: f64,
    right: &Cholesky,
) -> Result<Vec<f32>, SvdError> {
    let of =
        |numbers: &[f32]| Mat::from_fn(numbers.len() / columns, columns, |i, j| f64::from(numbers[i * columns + j]));
    let w = of(matrix);
    // The transpose of W K (R Rᵀ)⁻¹, column by column.
    let mut change = (faer::Scale(scale) * (&w * of(cross))).transpose().to_owned();
    solve_lower_triangular_in_place(right.0.as_ref(), change.as_mut(), Par::Seq);
    solve_upper_triangular_in_place(right.0.transpose(), change.as_mut(), Par::Seq);
    let all: Vec<f32> = w
        .row_iter()
        .zip(change.col_iter())
        .flat_map(|(w, change)| w.iter().zip(change.iter()).map(|(w, change)| (w + change) as f32).collect::<Vec<_>>())
        .collect();
    if all.iter().all(|x| x.is_finite()) { Ok(all) } else { Err(SvdError::NotFinite) }
}

/// Decomposes the row-major `matrix` W [rows, columns] in the norm ‖Lᵀ W R‖ of `left` L [rows, rows] and `right` R
/// [columns, columns]: Lᵀ W R = U diag(σ) Vᵀ gives W = P diag(σ) Qᵀ with P = L⁻ᵀ U and Q = R⁻ᵀ V, and of all matrices of
/// rank k the first k triplets are the closest to W in that norm. P and Q take the places of U and V in [`Svd`].
///
/// # Errors
/// As [`super::thin_svd`].
pub fn weighted_svd(
    matrix: &[f32],
    rows: usize,
    columns: usize,
    left: Option<&Cholesky>,
    right: Option<&Cholesky>,
) -> Result<Svd, SvdError> {
    let mut svd = svd_of(&weighted(matrix, rows, columns, left, right)?, 0.0)?;
    if let Some(left) = left {
        left.solve_transposed(&mut svd.left);
    }
    if let Some(right) = right {
        right.solve_transposed(&mut svd.right);
    }
    Ok(svd)
}

/// σ of [`weighted_svd`], for whoever needs no vectors: a third of the time.
///
/// # Errors
/// As [`super::thin_svd`].
pub fn weighted_values(
    matrix: &[f32],
    rows: usize,
    columns: usize,
    left: Option<&Cholesky>,
    right: Option<&Cholesky>,
) -> Result<Vec<f64>, SvdError> {
    singular_values(&weighted(matrix, rows, columns, left, right)?)
}

/// Lᵀ W R.
fn weighted(
    matrix: &[f32],
    rows: usize,
    columns: usize,
    left: Option<&Cholesky>,
    right: Option<&Cholesky>,
) -> Result<Mat<f64>, SvdError> {
    if !matrix.iter().all(|x| x.is_finite()) {
        return Err(SvdError::NotFinite);
    }
    let mut weighted = Mat::from_fn(rows, columns, |i, j| f64::from(matrix[i * columns + j]));
    if let Some(Cholesky(left)) = left {
        weighted = left.transpose() * weighted;
    }
    if let Some(Cholesky(right)) = right {
        weighted = weighted * right;
    }
    Ok(weighted)
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
                let svd = weighted_svd(&w, m, n, left, right).unwrap();
                assert!(svd.sigma.is_sorted_by(|x, y| x >= y));
                let values = weighted_values(&w, m, n, left, right).unwrap();
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
        let svd = weighted_svd(&random(m, n, 1), m, n, Some(&left), Some(&right)).unwrap();
        let (root_a, root_c) = (root(&matrix(&a, m)), root(&matrix(&c, n)));
        let direct = (&root_a * &w * &root_c).thin_svd().unwrap();
        for (k, expected) in direct.S().column_vector().iter().enumerate() {
            assert!((svd.sigma[k] / expected - 1.0).abs() < 1e-6, "σ {k}: {} and {expected}", svd.sigma[k]);
            // What k triplets leave over is what no matrix of rank k can avoid (Eckart and Young).
            let error = (&root_a * (&w - truncated(&svd, k)) * &root_c).norm_l2();
            let unavoidable = svd.sigma[k..].iter().map(|s| s * s).sum::<f64>().sqrt();
            assert!((error - unavoidable).abs() < 1e-5 * svd.sigma[0], "rank {k}: {error} and {unavoidable}");
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
        let svd = weighted_svd(&w, m, n, None, Some(&right)).unwrap();
        assert!(svd.left.iter().chain(&svd.right).chain(&svd.sigma).all(|x| x.is_finite()));
        // Four tokens span four directions: four triplets give all their outputs.
        let lost = &(truncated(&svd, 4) - matrix(&w, n)) * root(&matrix(&c, n));
        assert!(lost.norm_l2() < 1e-2 * svd.sigma[0], "{}", lost.norm_l2());
    }

    #[test]
    fn a_retargeted_matrix_is_the_least_squares_solution() {
        let (m, n, tokens) = (5, 6, 40);
        let (w, x, renewed) = (random(m, n, 1), random(tokens, n, 2), random(tokens, n, 3));
        let (x, renewed) = (matrix(&x, n), matrix(&renewed, n));
        let row_major = |product: Mat<f64>| -> Vec<f32> {
            product.row_iter().flat_map(|row| row.iter().map(|x| *x as f32).collect::<Vec<_>>()).collect()
        };
        let cross = row_major((&x - &renewed).transpose() * &renewed);
        let right = Cholesky::new(&row_major(renewed.transpose() * &renewed), 0.1, 1e-12).unwrap();
        let found = matrix(&retargeted(&w, n, &cross, 0.1, &right).unwrap(), n);
        // Another way: the pseudo-inverse of X′.
        let direct =
            (renewed.thin_svd().unwrap().pseudoinverse() * &x * matrix(&w, n).transpose()).transpose().to_owned();
        assert!((&found - &direct).norm_l2() < 1e-5, "{}", (found - direct).norm_l2());
    }

    #[test]
    fn a_retargeted_matrix_stays_where_nothing_says_otherwise() {
        // Fewer tokens than features, and one of them dead: along what no token has, W is as it was.
        let (m, n, tokens) = (4, 9, 3);
        let (w, mut renewed) = (random(m, n, 1), random(tokens, n, 3));
        (0..tokens).for_each(|token| renewed[token * n + 8] = 0.0);
        let renewed = matrix(&renewed, n);
        let c: Vec<f32> = (0..n * n).map(|at| (renewed.transpose() * &renewed)[(at / n, at % n)] as f32).collect();
        let right = Cholesky::new(&c, 1.0, 1e-4).unwrap();
        let same = retargeted(&w, n, &vec![0.0; n * n], 1.0, &right).unwrap();
        assert!(same == w);
        let change = matrix(&retargeted(&w, n, &c, 1.0, &right).unwrap(), n) - matrix(&w, n);
        assert!(change.col(8).iter().all(|x| x.abs() < 1e-6));
        assert_eq!(retargeted(&w, n, &vec![f32::NAN; n * n], 1.0, &right).unwrap_err(), SvdError::NotFinite);
    }

    #[test]
    fn nothing_seen_prefers_no_direction_and_nonsense_is_refused() {
        let zeros = Cholesky::new(&[0.0; 9], 1.0, 1e-6).unwrap();
        let w = random(3, 3, 1);
        let (plain, weighted) =
            (weighted_svd(&w, 3, 3, None, None).unwrap(), weighted_svd(&w, 3, 3, None, Some(&zeros)).unwrap());
        assert!(plain.sigma.iter().zip(&weighted.sigma).all(|(a, b)| (a - b).abs() < 1e-12));
        assert_eq!(Cholesky::new(&[f32::NAN], 1.0, 1e-6).unwrap_err(), SvdError::NotFinite);
    }
}
