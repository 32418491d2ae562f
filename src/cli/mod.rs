//! The subcommands that talk to people: parse, call, print. What they call is handed to them by [`crate::app`].

use std::io::{self, Write as _};

mod bar;
pub mod bench;
pub mod compress;
pub mod demo;
pub mod eval;
mod healthcheck;
pub mod jobs;
pub mod keys;
mod recovery;
pub mod sweep;
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

/// Prints to standard output.
///
/// # Errors
/// What the system says, a closed pipe included.
pub fn print(text: &str) -> io::Result<()> {
    io::stdout().lock().write_all(text.as_bytes())
}

/// Says on standard error what went wrong.
pub fn complain(text: &str) {
    // Nobody may be reading; the exit code is left.
    let _ = writeln!(io::stderr(), "graspd: {text}");
}
