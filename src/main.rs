//! The graspd binary: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    graspd::app::run(graspd::config::Cli::parse())
}
