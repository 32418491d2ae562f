//! The subcommands that talk to people: parse, call, print. What they call is handed to them by [`crate::app`].

mod bar;
pub mod compress;
pub mod demo;
mod healthcheck;
mod table;
mod watch;

pub use bar::Bar;
pub use healthcheck::healthcheck;
pub use table::summary;
pub use watch::{Ending, follow, tell};

/// Everything went well.
pub const SUCCEEDED: u8 = 0;
/// The job failed, or could not be begun.
pub const FAILED: u8 = 1;
/// The job was cancelled.
pub const CANCELLED: u8 = 2;
/// No answer, not one of graspd's, or a command line that cannot be used.
pub const NO_ANSWER: u8 = 3;
/// Ended by Ctrl-C, as shells count it.
pub const INTERRUPTED: u8 = 130;
