use candle_core::{D, DType, Result, Tensor};
use rayon::prelude::*;

use super::{is_fused, numbers, rows_per_task, sum_of, vectorised};

/// Cosine similarity of every row of `a` with the same row of `b`, both [rows, width].
pub fn cosine_similarities(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    if !is_fused(a) {
        let dot = (a * b)?.sum(D::Minus1)?;
        let norms = (a.sqr()?.sum(D::Minus1)?.sqrt()? * b.sqr()?.sum(D::Minus1)?.sqrt()?)?;
        return (dot / norms)?.to_dtype(DType::F64)?.to_vec1();
    }
    let width = a.dim(D::Minus1)?;
    let (a_guard, b_guard) = (numbers(a)?, numbers(b)?);
    let (a_all, b_all) = (a_guard.get()?, b_guard.get()?);
    let cosine = |(a, b): (&[f32], &[f32])| {
        vectorised(
            #[inline(always)]
            || {
                let product = |a: &[f32], b: &[f32]| f64::from(sum_of(a, b, |x, y| x * y));
                product(a, b) / (product(a, a) * product(b, b)).sqrt()
            },
        )
    };
    let rows = a_all.par_chunks_exact(width).zip(b_all.par_chunks_exact(width));
    Ok(rows.with_min_len(rows_per_task(width)).map(cosine).collect())
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn a_row_is_similar_to_itself_and_opposite_to_its_negative() {
        let a = random(1, &[4, 33]);
        let minus = a.neg().unwrap();
        assert!(cosine_similarities(&a, &a).unwrap().iter().all(|cos| (cos - 1.0).abs() < 1e-6));
        assert!(cosine_similarities(&a, &minus).unwrap().iter().all(|cos| (cos + 1.0).abs() < 1e-6));
    }
}
