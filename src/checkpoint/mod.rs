//! Model files: where they come from, what is in them, and how they are written.

mod error;
mod hub;

pub use error::Error;
pub use hub::HubSettings;
