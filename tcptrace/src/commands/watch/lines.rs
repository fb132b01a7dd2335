//! A line per transition.

use std::io::{IsTerminal as _, Write as _};
use std::ops::ControlFlow;

use anyhow::Context as _;
use jiff::tz::TimeZone;

use super::{conclude, wanted};
use crate::commands::source::Source;
use crate::commands::{Exit, LineSink, trace};
use crate::engine::Engine;
use crate::filter::Filter;
use crate::live::{self, Handler};
use crate::outcome::Outcome;
use crate::settings::{Format, Watch};
use crate::snapshot::WallClock;
use crate::views::json;
use crate::views::paint::Paint;
use crate::views::transitions::{Columns, Options};

/// Prints until the end. `instead` says why this is not the full screen, where nobody asked for lines.
pub fn run(source: &Source, settings: &Watch, instead: Option<&'static str>) -> anyhow::Result<Exit> {
    let wanted = wanted(settings, live::PROMPT_TICK);
    let mut engine = source.engine(&wanted);
    // Before tracing: a container that ends meanwhile is then known by name.
    let container = match settings.output.format {
        Format::Json => Box::new(|_| None),
        Format::Text | Format::Plain => source.containers(),
    };
    let mut printer = Printer::new(settings, engine.meta().wall, container, instead);
    source.run(&mut engine, &wanted, &mut printer)?;
    printer.finish(&engine, settings)
}

/// How an outcome becomes a line.
enum Lines {
    Json(Box<json::Outcomes>),
    Text(Box<Table>),
}

/// Columns, with their header at the top of each screenful where there is a screen.
struct Table {
    columns: Columns,
    /// Lines since the header; `None` where nobody looks.
    since_header: Option<usize>,
}

/// A terminal that does not say how high it is.
const USUAL_ROWS: u16 = 24;

impl Table {
    fn write(
        &mut self,
        outcome: &Outcome,
        container: &dyn Fn(u64) -> Option<String>,
        out: &mut impl std::io::Write,
    ) -> std::io::Result<()> {
        if let Some(lines) = &mut self.since_header {
            // Asked each time, because windows change their size.
            let rows = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(0, |size| size.ws_row);
            let rows = if rows == 0 { USUAL_ROWS } else { rows };
            *lines += 1;
            if *lines >= usize::from(rows).max(3) - 1 {
                *lines = 1;
                self.columns.write_header(out)?;
            }
        }
        self.columns.write_outcome(outcome, container, out)
    }
}

struct Printer<'a> {
    filter: Filter,
    lines: Lines,
    /// Names the container of a cgroup v2 id.
    container: Box<dyn Fn(u64) -> Option<String> + 'a>,
    out: LineSink<std::io::StdoutLock<'static>>,
    /// The first error of writing: outcomes come where none can be returned.
    failed: Option<std::io::Error>,
    /// Why there is no full screen: to be told once.
    instead: Option<&'static str>,
}

impl<'a> Printer<'a> {
    fn new(
        settings: &Watch,
        wall: WallClock,
        container: Box<dyn Fn(u64) -> Option<String> + 'a>,
        instead: Option<&'static str>,
    ) -> Self {
        let mut out = LineSink::stdout();
        let mut failed = None;
        let lines = match settings.output.format {
            Format::Json => Lines::Json(Box::new(json::Outcomes::new(wall))),
            Format::Text | Format::Plain => {
                let options = Options {
                    paint: Paint { color: settings.output.color },
                    ascii: settings.output.ascii,
                    // One wanted namespace is no news.
                    show_netns: settings.filter.namespaces.len() != 1,
                    wall,
                    zone: TimeZone::system(),
                };
                let mut columns = Columns::new(options);
                failed = columns.write_header(&mut out).err();
                let since_header = std::io::stdout().is_terminal().then_some(0);
                Lines::Text(Box::new(Table { columns, since_header }))
            }
        };
        Self { filter: settings.filter.clone(), lines, container, out, failed, instead }
    }

    fn write(&mut self, outcome: &Outcome) -> std::io::Result<()> {
        match &mut self.lines {
            Lines::Json(lines) => lines.write(outcome, &mut self.out),
            Lines::Text(table) => table.write(outcome, &*self.container, &mut self.out),
        }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error).context("cannot write to standard output");
        }
        self.out.flush().context("cannot write to standard output")
    }

    fn finish(mut self, engine: &Engine, settings: &Watch) -> anyhow::Result<Exit> {
        let exit = match self.lines {
            Lines::Json(_) => {
                json::write_summary(&engine.snapshot(&|_| None), &mut self.out)?;
                trace::write_notes(engine.notes())?;
                trace::exit(engine, &settings.tracing)
            }
            // Standard error, so that the lines stay lines of one kind.
            Lines::Text(_) => conclude(engine, settings)?,
        };
        self.flush()?;
        Ok(exit)
    }
}

impl Handler for Printer<'_> {
    fn started(&mut self, _engine: &Engine) -> anyhow::Result<()> {
        if let Some(why) = self.instead.take() {
            writeln!(anstream::stderr().lock(), "note: a line per transition, because {why}")?;
        }
        Ok(())
    }

    fn outcome(&mut self, outcome: &Outcome) {
        let wanted = match outcome {
            Outcome::Transition(transition) => self.filter.matches_transition(transition),
            Outcome::ConnectFailed { .. } => true,
        };
        if wanted && self.failed.is_none() {
            self.failed = self.write(outcome).err();
        }
    }

    fn turn(&mut self, _engine: &mut Engine) -> anyhow::Result<ControlFlow<()>> {
        self.flush()?;
        Ok(ControlFlow::Continue(()))
    }
}
