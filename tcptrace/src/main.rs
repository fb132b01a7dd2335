//! Parse, run, exit code.

use std::process::ExitCode;

use tcptrace::huge_pages::HugePages;
use tcptrace::{cli, commands};

#[global_allocator]
static ALLOCATOR: HugePages = HugePages;

fn main() -> ExitCode {
    let invocation = match cli::Invocation::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(error) => return commands::report_usage(&error),
    };
    match commands::run(invocation) {
        Ok(exit) => exit.into(),
        Err(error) => commands::report_failure(&error),
    }
}
