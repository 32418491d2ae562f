//! Decompositions of weight matrices, on the CPU.
//!
//! U [m, r], σ [r], V [n, r]: the thin singular value decomposition W = U diag(σ) Vᵀ of W [m, n], r = min(m, n).

mod matmul;
mod svd;
mod weighted;

pub use matmul::{Accumulate, MatMut, MatRef, matmul};
pub use svd::{Svd, SvdError, thin_svd};
pub use weighted::{Cholesky, Target, Weighting, weighted_svd, weighted_values};
