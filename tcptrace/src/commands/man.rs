//! `tcptrace man`.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_mangen::Man;

use super::{Advice as _, Exit};
use crate::cli::{Cli, ManArgs};

/// Prints the main page, or writes them all.
pub fn run(args: &ManArgs) -> anyhow::Result<Exit> {
    match &args.out {
        None => {
            std::io::stdout().lock().write_all(&main_page()?).context("cannot write to standard output")?;
        }
        Some(dir) => write_pages(dir)?,
    }
    Ok(Exit::Done)
}

fn main_page() -> anyhow::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(Cli::command()).render(&mut page).context("cannot render the manual page")?;
    Ok(page)
}

fn write_pages(dir: &Path) -> anyhow::Result<()> {
    clap_mangen::generate_to(Cli::command(), dir)
        .with_context(|| format!("cannot write manual pages into {}", dir.display()))
        .advise("name a directory that exists and that you may write to")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        write_pages(dir.path()).unwrap();
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let page = dir.path().join(format!("tcptrace-{}.1", command.get_name()));
            assert!(std::fs::read_to_string(page).unwrap().starts_with(".ie"));
        }
        assert!(!main_page().unwrap().is_empty());
    }
}
