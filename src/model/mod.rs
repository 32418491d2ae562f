//! graspd's own decoder, forward and backward.

mod device;

pub use device::open_device;
