//! The immutable view that the panes are drawn from.

use std::net::SocketAddr;

use crate::event::MonoNs;
use crate::net::Flow;
use crate::outcome::{Open, Outcome};
use crate::snapshot::{Age, ProcessKey, Snapshot};

use super::history::Past;
use super::trends::Trends;

/// Everything that is shown, as it was at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The figures.
    pub snapshot: Snapshot,
    /// How they moved.
    pub trends: Trends,
    /// Who holds sockets in CLOSE_WAIT, most sockets first.
    pub holders: Vec<Holder>,
    /// What is open.
    pub connections: Listed<Open>,
    /// What happened last, oldest first.
    pub events: Listed<Seen>,
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

/// A process that holds sockets in CLOSE_WAIT.
#[derive(Clone, Debug, PartialEq)]
pub struct Holder {
    /// Who; `None` where not known.
    pub process: Option<ProcessKey>,
    /// Sockets that are in CLOSE_WAIT long enough to be called leaked.
    pub sockets: u64,
    /// The oldest.
    pub oldest: Age,
    /// Sockets a minute more; `None` before there is something to compare with.
    pub per_min: Option<f64>,
    /// Sockets whose application has read the end.
    pub eof_read: u64,
    /// Sockets with data, or the end, unread.
    pub unread: u64,
    /// Where its peers are, most sockets first; the first few.
    pub peers: Vec<(std::net::IpAddr, u64)>,
    /// Local endpoints, most sockets first; the first few.
    pub locals: Vec<(SocketAddr, u64)>,
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
    /// On its way to another place.
    pub seeking: bool,
}
