//! The immutable view that the panes are drawn from.

use std::sync::Arc;

use crate::event::MonoNs;
use crate::leaks::LeakReport;
use crate::net::Flow;
use crate::outcome::{Open, Outcome};
use crate::snapshot::{Age, Snapshot};

use super::history::Past;
use super::ports::TimeWaits;
use super::query::Pane;
use super::trends::Trends;

/// Everything that is shown, as it was at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The figures.
    pub snapshot: Snapshot,
    /// How they moved.
    pub trends: Trends,
    /// Who keeps sockets in CLOSE_WAIT.
    pub leaks: Arc<LeakReport>,
    /// Why the leaks are not those of now, in words.
    pub leaks_failed: Option<String>,
    /// Who makes TIME_WAITs, and towards whom.
    pub time_waits: TimeWaits,
    /// What is open.
    pub connections: Listed<Open>,
    /// What happened last, oldest first.
    pub events: Listed<Seen>,
    /// The pane whose lists are in it.
    pub pane: Pane,
    /// The life of the connection that was asked for.
    pub timeline: Option<Timeline>,
    /// The filter that was typed in; `None` without one.
    pub focus: Option<Focus>,
    /// The recording that is being made.
    pub recording: Option<Recording>,
    /// The recording that is being played; `None` for a live kernel.
    pub playback: Option<Playback>,
}

impl View {
    /// The moment that it shows.
    #[must_use]
    pub fn now(&self) -> MonoNs {
        self.snapshot.meta.now
    }

    /// An age of the report of leaks, as it is now: that report is some seconds old.
    #[must_use]
    pub fn leak_age(&self, age: Age) -> Age {
        Age { ns: age.ns + self.now().saturating_sub(self.leaks.at), ..age }
    }
}

/// The first of a longer list.
#[derive(Clone, Debug)]
pub struct Listed<T> {
    /// As many as are kept.
    pub rows: Vec<T>,
    /// How many there are.
    pub total: u64,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), total: 0 }
    }
}

/// Something that happened, with its number: outcomes have no name of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Unique in a run, ascending.
    pub seq: u64,
    /// What.
    pub outcome: Outcome,
}

/// The life of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// Which.
    pub conn: u64,
    /// Where.
    pub flow: Option<Flow>,
    /// What was seen of it.
    pub past: Option<Past>,
    /// The state that it is in; `None` when it is over.
    pub open: Option<Open>,
}

/// The filter in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Focus {
    /// In option syntax.
    pub line: String,
    /// Since when: figures count from then on.
    pub since: MonoNs,
}

/// A recording that is being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// The file.
    pub path: String,
    /// Events in it.
    pub events: u64,
    /// Since when.
    pub since: MonoNs,
}

/// A recording that is being played.
#[derive(Clone, Debug, PartialEq)]
pub struct Playback {
    /// Times faster than it happened.
    pub speed: f64,
    /// Stands still.
    pub paused: bool,
    /// Where it began.
    pub started: MonoNs,
    /// Where it ends; `None` until the file has been read through.
    pub ended: Option<MonoNs>,
    /// It has come to its end: how that was, in words.
    pub ending: Option<String>,
    /// That was its own end, and not damage.
    pub is_complete: bool,
    /// On its way to another place.
    pub seeking: bool,
}
