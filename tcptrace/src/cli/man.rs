//! `tcptrace man`.

use std::path::PathBuf;

use clap::Args;

/// Options of `man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tcptrace man | man -l -
  sudo tcptrace man --out /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Write the page of every command into this directory, which must exist, instead of printing the main
    /// page.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}
