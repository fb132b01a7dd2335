//! `tcptrace leaks`: which processes keep sockets in CLOSE_WAIT.

use anyhow::Context as _;

use super::{Exit, LineSink};
use crate::cli::LeaksArgs;
use crate::inventory::clock;
use crate::leaks::{History, LeakReport, survey};
use crate::settings::{Environment, Format, Leaks, System};
use crate::snapshot::WallClock;
use crate::views::paint::Paint;
use crate::views::{json, leaks};

/// Runs the command.
pub fn run(args: &LeaksArgs) -> anyhow::Result<Exit> {
    let settings = Leaks::from_args(args, &Environment::detect(), &System)?;
    let evidence = survey::take(&settings.terms.filter).context("cannot list sockets")?;
    let report = LeakReport::new(&evidence, &settings.terms, &History::default());
    let mut out = LineSink::stdout();
    write(&report, &settings, &mut out)?;
    Ok(if settings.fail_on_leak && !report.is_clean() { Exit::Leak } else { Exit::Done })
}

fn write(report: &LeakReport, settings: &Leaks, out: &mut impl std::io::Write) -> anyhow::Result<()> {
    let wall = WallClock { offset_ns: clock::realtime_offset_ns() };
    let written = match settings.output.format {
        Format::Json => json::write_leaks(report, wall, out),
        Format::Text | Format::Plain => {
            let options = leaks::Options {
                width: settings.output.width.into(),
                paint: Paint { color: settings.output.color },
                filters: settings.terms.filter.to_string(),
                stacks: settings.watching.is_some_and(|watching| watching.stacks),
                ..leaks::Options::default()
            };
            leaks::write(report, &options, out)
        }
    };
    written.and_then(|()| out.flush()).context("cannot write to standard output")
}
