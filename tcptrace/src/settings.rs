//! Raw options, validated once. Commands see only what stands here.

mod doctor;
pub mod duration;
mod environment;
mod filter;
mod leaks;
pub mod recorded;
mod serve;
mod system;

use std::fmt;
use std::time::Duration;

pub use doctor::Doctor;
pub use environment::Environment;
pub use leaks::{Leaks, Watching};
pub use serve::Serve;
pub use system::System;

use crate::cli::{OutputArgs, ReportArgs, StatesArgs, TracingArgs, WatchArgs};
use crate::filter::{Filter, Resolver};
use crate::net::State;
use crate::snapshot::KeyKind;
use crate::tui::theme::Palette;

/// A command line that cannot be meant: exit status 2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct UsageError {
    /// What is wrong, and where.
    what: String,
    /// What to do.
    hint: Option<String>,
}

impl UsageError {
    /// What is wrong, and where.
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What to do.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For a person; on a terminal as rich as the command has it.
    #[default]
    Text,
    /// A line per record, on a terminal too.
    Plain,
    /// A JSON object a line.
    Json,
}

/// What is printed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// The form.
    pub format: Format,
    /// With colour; never in JSON.
    pub color: bool,
    /// The terminal shows ASCII only.
    pub ascii: bool,
    /// Columns to draw for.
    pub width: u16,
}

impl Output {
    /// Validates.
    #[must_use]
    pub fn from_args(args: &OutputArgs, environment: &Environment) -> Self {
        Self {
            format: if args.json { Format::Json } else { Format::Text },
            color: !args.json && environment.color(args.color),
            ascii: environment.ascii,
            width: args.width.unwrap_or(environment.width),
        }
    }
}

/// How, and for how long, to trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Stop after this time; `None`: run until interrupted.
    pub duration: Option<Duration>,
    /// Size of the event ring: a power of two.
    pub ring_bytes: u32,
    /// Loss is a failure.
    pub fail_on_loss: bool,
}

impl Default for Tracing {
    fn default() -> Self {
        let ring_bytes = crate::kernel::TracerOptions::default().ring_bytes;
        Self { duration: None, ring_bytes, fail_on_loss: false }
    }
}

impl From<&TracingArgs> for Tracing {
    fn from(args: &TracingArgs) -> Self {
        Self { duration: args.duration, ring_bytes: args.ring_size, fail_on_loss: args.fail_on_loss }
    }
}

/// `watch`.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// Which connections.
    pub filter: Filter,
    /// How many times faster than it happened a recording is played on the screen.
    pub speed: f64,
    /// Colours of the screen.
    pub palette: Palette,
    /// Output.
    pub output: Output,
    /// Tracing.
    pub tracing: Tracing,
}

impl Watch {
    /// Validates.
    pub fn from_args(
        args: &WatchArgs,
        environment: &Environment,
        resolver: &dyn Resolver,
    ) -> Result<Self, UsageError> {
        let mut output = Output::from_args(&args.output, environment);
        if args.plain {
            output.format = Format::Plain;
        }
        let filter = Filter::from_args(&args.filter, resolver)?;
        traced_states_only(&filter)?;
        let palette = match (output.color, environment.has_256_colors) {
            (false, _) => Palette::Plain,
            (true, false) => Palette::Sixteen,
            (true, true) => Palette::Xterm,
        };
        Ok(Self { filter, speed: args.speed.0, palette, output, tracing: Tracing::from(&args.tracing) })
    }
}

/// `report`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which connections.
    pub filter: Filter,
    /// Break the figures down by this.
    pub by: Option<KeyKind>,
    /// Output.
    pub output: Output,
    /// Tracing.
    pub tracing: Tracing,
}

impl Report {
    /// Validates.
    pub fn from_args(
        args: &ReportArgs,
        environment: &Environment,
        resolver: &dyn Resolver,
    ) -> Result<Self, UsageError> {
        let filter = Filter::from_args(&args.filter, resolver)?;
        traced_states_only(&filter)?;
        if filter.states == State::Close.into() {
            return Err(UsageError::new(
                "--state CLOSE: nothing is in CLOSE, so there is no dwell to report",
            )
            .hint("name the state that ended: sockets come to CLOSE from every other one"));
        }
        Ok(Self {
            filter,
            by: args.by,
            output: Output::from_args(&args.output, environment),
            tracing: Tracing::from(&args.tracing),
        })
    }
}

/// `states`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct States {
    /// Which sockets.
    pub filter: Filter,
    /// Break the counts down by this.
    pub by: Option<KeyKind>,
    /// Rows of the breakdown in text.
    pub top: usize,
    /// Output.
    pub output: Output,
}

impl States {
    /// Validates.
    pub fn from_args(
        args: &StatesArgs,
        environment: &Environment,
        resolver: &dyn Resolver,
    ) -> Result<Self, UsageError> {
        if args.filter.min_dwell.is_some() {
            return Err(UsageError::new("--min-dwell: a count at one moment knows no dwells").hint(
                "tcptrace report measures them; tcptrace leaks --min-age shows old CLOSE_WAITs at once",
            ));
        }
        Ok(Self {
            filter: Filter::from_args(&args.filter, resolver)?,
            by: args.by,
            top: usize::from(args.top),
            output: Output::from_args(&args.output, environment),
        })
    }
}

/// Refuses a wish that tracing can never fulfil.
fn traced_states_only(filter: &Filter) -> Result<(), UsageError> {
    if filter.states == State::NewSynRecv.into() {
        return Err(UsageError::new(
            "--state NEW_SYN_RECV: request sockets change state without the kernel reporting it",
        )
        .hint("SYN_RECV is the state in which a new connection is first seen"));
    }
    Ok(())
}
