//! graspd's own decoder, forward and backward.
