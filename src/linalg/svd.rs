use faer::{
    Accum, Mat, MatRef as FaerRef, Par, Side,
    linalg::matmul::triangular::{self, BlockStructure},
};

/// A thin singular value decomposition in single precision, σ in descending order.
///
/// It is computed in double precision and rounded once: trained matrices have condition numbers of 10⁴, and the
/// gradient's projection on the singular vectors is only as good as the vectors of close singular values.
#[derive(Clone, Debug)]
pub struct Svd {
    /// U as [r, m], row k holds `u_k`.
    pub left: Vec<f64>,
    /// σ [r], descending.
    pub sigma: Vec<f64>,
    /// V as [r, n], row k holds `v_k`.
    pub right: Vec<f64>,
    /// m, the rows of W.
    pub rows: usize,
    /// n, the columns of W.
    pub columns: usize,
}

/// A matrix could not be decomposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SvdError {
    /// It holds a NaN or an infinity.
    #[error("the matrix holds numbers that are not finite")]
    NotFinite,
    /// The iteration did not converge.
    #[error("the singular value decomposition did not converge")]
    NoConvergence,
}

/// Below this share of the largest singular value, the product `WᵀW` no longer tells a singular value and its vectors
/// well enough: it holds their squares.
const WELL_CONDITIONED: f64 = 1e-4;

/// Decomposes the row-major `matrix` [rows, columns].
///
/// By way of the eigenvectors of `WᵀW`, which takes half the time of the direct way and, in double precision, gives a
/// well-conditioned single-precision matrix's triplets to about 10⁻⁸; a matrix that is not well-conditioned goes the
/// direct way.
///
/// # Errors
/// [`SvdError`] when the matrix is not finite or the iteration does not converge.
pub fn thin_svd(matrix: &[f32], rows: usize, columns: usize) -> Result<Svd, SvdError> {
    if !matrix.iter().all(|x| x.is_finite()) {
        return Err(SvdError::NotFinite);
    }
    svd_of(&Mat::from_fn(rows, columns, |i, j| f64::from(matrix[i * columns + j])), WELL_CONDITIONED, usize::MAX)
}

/// The first `count` triplets, or all if they are fewer, by way of the eigenvectors however the matrix is conditioned, unless
/// rounding made one of their eigenvalues negative: small singular values are as good as [`singular_values`] says.
pub(super) fn leading(matrix: &Mat<f64>, count: usize) -> Result<Svd, SvdError> {
    svd_of(matrix, 0.0, count)
}

/// A matrix whose singular values all reach the share `well_conditioned` of the largest goes by way of the eigenvectors.
fn svd_of(matrix: &Mat<f64>, well_conditioned: f64, count: usize) -> Result<Svd, SvdError> {
    let (rows, columns) = (matrix.nrows(), matrix.ncols());
    // A wide matrix is decomposed as its transpose: tall is what the algorithms are made for.
    let tall = rows >= columns;
    let w = if tall { matrix.to_owned() } else { matrix.transpose().to_owned() };
    let (left, sigma, right) = match by_product(&w, well_conditioned, count)? {
        Some(triplets) => triplets,
        None => directly(&w, count)?,
    };
    let (left, right) = if tall { (left, right) } else { (right, left) };
    Ok(Svd { left, sigma, right, rows, columns })
}

/// U, σ and V as [`Svd`] holds them.
type Triplets = (Vec<f64>, Vec<f64>, Vec<f64>);

/// σ of a matrix, descending, without its vectors: the roots of the eigenvalues of `WᵀW`, so that those below 10⁻⁸ of the
/// largest are noise.
pub(super) fn singular_values(matrix: &Mat<f64>) -> Result<Vec<f64>, SvdError> {
    let tall = matrix.nrows() >= matrix.ncols();
    let product = if tall { gram(matrix.as_ref()) } else { gram(matrix.transpose()) };
    let squares = product.self_adjoint_eigenvalues(Side::Lower).map_err(|_| SvdError::NoConvergence)?;
    let mut sigma: Vec<f64> = squares.into_iter().map(|square| square.max(0.0).sqrt()).collect();
    sigma.sort_by(|a, b| b.total_cmp(a));
    Ok(sigma)
}

/// The lower triangle of `WᵀW`.
fn gram(w: FaerRef<'_, f64>) -> Mat<f64> {
    let mut product = Mat::zeros(w.ncols(), w.ncols());
    triangular::matmul(
        product.as_mut(),
        BlockStructure::TriangularLower,
        Accum::Replace,
        w.transpose(),
        BlockStructure::Rectangular,
        w,
        BlockStructure::Rectangular,
        1.0,
        Par::Seq,
    );
    product
}

/// `WᵀW` = V diag(σ²) Vᵀ and U = W V / σ, of the `count` largest; `None` for a matrix that is not well-conditioned.
fn by_product(w: &Mat<f64>, well_conditioned: f64, count: usize) -> Result<Option<Triplets>, SvdError> {
    let n = w.ncols();
    let product = gram(w.as_ref());
    let eigen = product.self_adjoint_eigen(Side::Lower).map_err(|_| SvdError::NoConvergence)?;
    drop(product);
    let squares = eigen.S().column_vector();
    let count = count.min(n);
    // They ascend.
    let (least, most) = (squares[n - count.max(1)], squares[n - 1]);
    if least.is_nan() || least < most * well_conditioned * well_conditioned {
        return Ok(None);
    }
    let v = eigen.U().get(.., n - count..);
    let wv = w * v;
    // The length of W v is closer than the root of its square.
    let lengths: Vec<f64> = wv.col_iter().map(|column| column.norm_l2()).collect();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| lengths[b].total_cmp(&lengths[a]));
    let sigma: Vec<f64> = order.iter().map(|&k| lengths[k]).collect();
    let left = order
        .iter()
        .zip(&sigma)
        .flat_map(|(&k, &sigma)| wv.col(k).iter().map(move |x| if sigma > 0.0 { x / sigma } else { 0.0 }))
        .collect();
    let right = order.iter().flat_map(|&k| v.col(k).iter().copied()).collect();
    Ok(Some((left, sigma, right)))
}

fn directly(w: &Mat<f64>, count: usize) -> Result<Triplets, SvdError> {
    let svd = w.thin_svd().map_err(|_| SvdError::NoConvergence)?;
    let count = count.min(w.ncols());
    let sigma = svd.S().column_vector().iter().take(count).copied().collect();
    Ok((vectors(svd.U().get(.., ..count)), sigma, vectors(svd.V().get(.., ..count))))
}

/// The columns of a matrix one after the other.
fn vectors(matrix: FaerRef<'_, f64>) -> Vec<f64> {
    matrix.col_iter().flat_map(|column| column.iter().copied().collect::<Vec<_>>()).collect()
}

impl Svd {
    /// Number of triplets.
    pub fn len(&self) -> usize {
        self.sigma.len()
    }

    /// Whether there is no triplet, which only an empty matrix has.
    pub fn is_empty(&self) -> bool {
        self.sigma.is_empty()
    }

    /// `u_k` [m].
    pub fn u(&self, k: usize) -> &[f64] {
        &self.left[k * self.rows..(k + 1) * self.rows]
    }

    /// `v_k` [n].
    pub fn v(&self, k: usize) -> &[f64] {
        &self.right[k * self.columns..(k + 1) * self.columns]
    }

    /// ∂`L/∂σ_k` = `u_kᵀ` G `v_k` for every k, from G = ∂L/∂W, row-major [m, n] (equation 6 of the paper).
    pub fn sigma_gradient(&self, gradient: &[f32]) -> Vec<f64> {
        let (m, n) = (self.rows, self.columns);
        let g = Mat::from_fn(m, n, |i, j| f64::from(gradient[i * n + j]));
        let u = FaerRef::from_column_major_slice(&self.left, m, self.len());
        let v = FaerRef::from_column_major_slice(&self.right, n, self.len());
        let gv = g * v;
        (0..self.len()).map(|k| u.col(k).iter().zip(gv.col(k).iter()).map(|(a, b)| a * b).sum()).collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    fn random(rows: usize, columns: usize) -> Vec<f32> {
        let mut rng = StdRng::seed_from_u64((rows * 1000 + columns) as u64);
        (0..rows * columns).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    #[test]
    fn the_triplets_multiply_back_to_the_matrix() {
        for (m, n) in [(7, 3), (3, 7), (16, 16), (1, 5), (40, 24)] {
            let w = random(m, n);
            let svd = thin_svd(&w, m, n).unwrap();
            assert!(svd.sigma.is_sorted_by(|a, b| a >= b));
            for i in 0..m {
                for j in 0..n {
                    let sum: f64 = (0..svd.len()).map(|k| svd.sigma[k] * svd.u(k)[i] * svd.v(k)[j]).sum();
                    assert!((sum - f64::from(w[i * n + j])).abs() < 1e-12 * (m * n) as f64, "{m}x{n}");
                }
            }
        }
    }

    /// A matrix with the singular values 1, 1/2, 1/4 … down to 2^-(n-1).
    fn geometric(n: usize) -> Vec<f32> {
        let frame = thin_svd(&random(n, n), n, n).unwrap();
        let entry = |i: usize, j: usize| -> f64 {
            (0..n).map(|k| frame.u(k)[i] * frame.v(k)[j] * 0.5_f64.powf(k as f64)).sum()
        };
        (0..n * n).map(|at| entry(at / n, at % n) as f32).collect()
    }

    #[test]
    fn both_ways_find_the_same_triplets() {
        for (m, n) in [(60, 24), (24, 24)] {
            let w = random(m, n);
            let w = Mat::from_fn(m, n, |i, j| f64::from(w[i * n + j]));
            let (left, sigma, right) = by_product(&w, WELL_CONDITIONED, n).unwrap().expect("a well-conditioned matrix");
            let (direct_left, direct_sigma, direct_right) = directly(&w, n).unwrap();
            for k in 0..n {
                assert!((sigma[k] / direct_sigma[k] - 1.0).abs() < 1e-12);
                let along = |a: &[f64], b: &[f64], m: usize| -> f64 {
                    a[k * m..(k + 1) * m].iter().zip(&b[k * m..]).map(|(a, b)| a * b).sum()
                };
                // The sign of a pair is free, but it is one sign.
                let (u, v) = (along(&left, &direct_left, m), along(&right, &direct_right, n));
                assert!((u.abs() - 1.0).abs() < 1e-9 && (u - v).abs() < 1e-9, "triplet {k}: {u} and {v}");
            }
        }
    }

    #[test]
    fn a_matrix_of_low_rank_goes_the_direct_way_and_keeps_orthogonal_vectors() {
        let w = geometric(30);
        let matrix = Mat::from_fn(30, 30, |i, j| f64::from(w[i * 30 + j]));
        assert!(by_product(&matrix, WELL_CONDITIONED, 30).unwrap().is_none());
        let svd = thin_svd(&w, 30, 30).unwrap();
        for i in 0..30 {
            for j in 0..30 {
                let (u, expected) = (svd.u(i).iter().zip(svd.u(j)).map(|(a, b)| a * b).sum::<f64>(), f64::from(i == j));
                assert!((u - expected).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn the_gradient_of_a_sum_of_squares_is_twice_sigma() {
        // L = Σ W², so G = 2W and ∂L/∂σ_k = 2σ_k.
        let w = random(9, 5);
        let svd = thin_svd(&w, 9, 5).unwrap();
        let g: Vec<f32> = w.iter().map(|x| 2.0 * x).collect();
        for (gradient, sigma) in svd.sigma_gradient(&g).iter().zip(&svd.sigma) {
            assert!((gradient - 2.0 * sigma).abs() < 1e-5);
        }
    }

    #[test]
    fn a_matrix_that_is_not_finite_is_refused() {
        assert_eq!(thin_svd(&[1.0, f32::NAN], 1, 2).unwrap_err(), SvdError::NotFinite);
    }
}
