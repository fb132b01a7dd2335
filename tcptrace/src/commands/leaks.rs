//! `tcptrace leaks`: which processes keep sockets in CLOSE_WAIT.

mod print;
mod watch;

use anyhow::Context as _;

use super::Exit;
use super::source::Source;
use crate::cli::LeaksArgs;
use crate::inventory::clock;
use crate::leaks::{History, LeakReport, survey};
use crate::settings::{Environment, Leaks};
use crate::snapshot::WallClock;

use print::Printer;

/// Runs the command.
pub fn run(args: &LeaksArgs) -> anyhow::Result<Exit> {
    let source = Source::open(&args.source, !args.filter.container.is_empty())?;
    let settings = Leaks::from_args(args, &Environment::detect(), source.resolver())?;
    match (&source, settings.watching) {
        (Source::Live, None) => at_once(&settings),
        (Source::Live, Some(watching)) => watch::live(&settings, &watching),
        (Source::Recording(_), _) => watch::replay(&source, &settings, &args.tracing),
    }
}

/// From an inventory alone: no BPF, and as much as the caller may see.
fn at_once(settings: &Leaks) -> anyhow::Result<Exit> {
    let evidence = survey::take(&settings.terms.filter).context("cannot list sockets")?;
    let report = LeakReport::new(&evidence, &settings.terms, &History::default());
    let wall = WallClock { offset_ns: clock::realtime_offset_ns() };
    Printer::new(settings, wall, true).page(&report)?;
    Ok(exit(settings, &report).unwrap_or(Exit::Done))
}

/// The status that a leak asks for.
fn exit(settings: &Leaks, report: &LeakReport) -> Option<Exit> {
    (settings.fail_on_leak && !report.is_clean()).then_some(Exit::Leak)
}
