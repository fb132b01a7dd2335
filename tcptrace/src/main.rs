//! Parse, run, exit code.

use std::process::ExitCode;

use clap::Parser as _;
use tcptrace::{cli, commands};

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return commands::report_usage(&error),
    };
    match commands::run(cli) {
        Ok(exit) => exit.into(),
        Err(error) => commands::report_failure(&error),
    }
}
