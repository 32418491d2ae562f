//! Decompositions of weight matrices.
