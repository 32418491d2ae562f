use faer::{Mat, MatRef as FaerRef};

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

/// Decomposes the row-major `matrix` [rows, columns].
///
/// # Errors
/// [`SvdError`] when the matrix is not finite or the iteration does not converge.
pub fn thin_svd(matrix: &[f32], rows: usize, columns: usize) -> Result<Svd, SvdError> {
    if !matrix.iter().all(|x| x.is_finite()) {
        return Err(SvdError::NotFinite);
    }
    // A wide matrix is decomposed as its transpose: tall is what the algorithm is made for.
    let tall = rows >= columns;
    let (m, n) = if tall { (rows, columns) } else { (columns, rows) };
    let at = |i: usize, j: usize| if tall { matrix[i * columns + j] } else { matrix[j * columns + i] };
    let svd = Mat::from_fn(m, n, |i, j| f64::from(at(i, j))).thin_svd().map_err(|_| SvdError::NoConvergence)?;
    let sigma: Vec<f64> = svd.S().column_vector().iter().copied().collect();
    let (left, right) = if tall { (svd.U(), svd.V()) } else { (svd.V(), svd.U()) };
    Ok(Svd { left: vectors(left), sigma, right: vectors(right), rows, columns })
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
