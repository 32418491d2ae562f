//! The graspd binary: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use graspd::{app, cli, config::Cli};

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _armed = graspd::fault::arm();
    match Cli::try_parse() {
        Ok(cli) => app::run(cli),
        Err(error) => {
            // Nobody may be reading. clap's own code for a wrong command line, 2, is that of a cancelled job here.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { cli::NO_ANSWER } else { cli::SUCCEEDED })
        }
    }
}
