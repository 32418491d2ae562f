//! Single-threaded products of small row-major blocks, for kernels that are parallel on the outside.

use faer::{Accum, Par};

/// A row-major block: `rows` × `columns`, `stride` numbers from one row to the next.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a> {
    /// Begins at the block's first number.
    pub data: &'a [f32],
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Distance of two rows.
    pub stride: usize,
}

/// As [`MatRef`], to be written to.
#[derive(Debug)]
pub struct MatMut<'a> {
    /// Begins at the block's first number.
    pub data: &'a mut [f32],
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Distance of two rows.
    pub stride: usize,
}

/// What happens to what the destination holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accumulate {
    /// It is overwritten.
    Replace,
    /// The product is added to it.
    Add,
}

impl<'a> MatRef<'a> {
    fn faer(self) -> faer::MatRef<'a, f32> {
        faer::MatRef::from_row_major_slice_with_stride(self.data, self.rows, self.columns, self.stride)
    }

    /// The transpose, as the third argument kind of [`matmul`].
    fn oriented(self, transposed: bool) -> faer::MatRef<'a, f32> {
        if transposed { self.faer().transpose() } else { self.faer() }
    }
}

/// `destination (+)= scale · op(left) · op(right)`, where `op` transposes when its flag says so.
pub fn matmul(
    destination: MatMut<'_>,
    accumulate: Accumulate,
    (left, left_transposed): (MatRef<'_>, bool),
    (right, right_transposed): (MatRef<'_>, bool),
    scale: f32,
) {
    let accumulate = match accumulate {
        Accumulate::Replace => Accum::Replace,
        Accumulate::Add => Accum::Add,
    };
    let MatMut { data, rows, columns, stride } = destination;
    // By way of the transpose: faer 0.24's own row-major constructor for mutable blocks swaps the strides.
    let destination =
        faer::MatMut::from_column_major_slice_with_stride_mut(data, columns, rows, stride).transpose_mut();
    faer::linalg::matmul::matmul(
        destination,
        accumulate,
        left.oriented(left_transposed),
        right.oriented(right_transposed),
        scale,
        Par::Seq,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "small whole numbers are exact")]
    fn blocks_of_larger_matrices_multiply_in_every_orientation() {
        // A 2 × 3 and a 3 × 2 block in rows of 5, and the transpose of each.
        let a: Vec<f32> = (0..15).map(|x| x as f32).collect();
        let block = |rows, columns| MatRef { data: &a, rows, columns, stride: 5 };
        let at = |block: MatRef<'_>, transposed: bool, i: usize, j: usize| {
            if transposed { block.data[j * block.stride + i] } else { block.data[i * block.stride + j] }
        };
        let (left, right) = (block(2, 3), block(3, 2));
        for (left, right) in [
            ((left, false), (right, false)),
            ((right, true), (right, false)),
            ((left, false), (left, true)),
            ((right, true), (left, true)),
        ] {
            for accumulate in [Accumulate::Replace, Accumulate::Add] {
                let mut out = vec![1.0; 14];
                matmul(MatMut { data: &mut out, rows: 2, columns: 2, stride: 7 }, accumulate, left, right, 0.5);
                for i in 0..2 {
                    for j in 0..2 {
                        let sum: f32 = (0..3).map(|k| at(left.0, left.1, i, k) * at(right.0, right.1, k, j)).sum();
                        let before = if accumulate == Accumulate::Add { 1.0 } else { 0.0 };
                        assert_eq!(out[i * 7 + j], before + 0.5 * sum);
                    }
                }
                assert!(out[2..7].iter().chain(&out[9..]).all(|x| *x == 1.0), "nothing outside the block is touched");
            }
        }
    }
}
