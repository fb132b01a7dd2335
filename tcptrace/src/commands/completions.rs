//! `tcptrace completions`.

use std::io::Write as _;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::Exit;
use crate::cli::{Cli, CompletionsArgs};

/// Prints the script.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<Exit> {
    // Made in memory first: the generators panic when they cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tcptrace", &mut script);
    std::io::stdout().lock().write_all(&script).context("cannot write to standard output")?;
    Ok(Exit::Done)
}
