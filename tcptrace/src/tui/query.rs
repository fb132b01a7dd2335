//! What the screen asks of the collector: only what can be seen is worked out.

use std::cmp::{Ordering, Reverse};
use std::net::SocketAddr;

use crate::outcome::{ConnId, Open, Outcome};
use crate::views::human;
use crate::views::transitions;

use super::lanes;
use super::view::Seen;

/// The panes, in the order of their keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pane {
    /// What is wrong, how many, how long.
    #[default]
    Overview,
    /// Processes that do not close.
    Leaks,
    /// Who makes TIME_WAITs, and what they cost.
    TimeWait,
    /// What is open.
    Connections,
    /// What happened.
    Events,
    /// Sysctls.
    Tuning,
}

impl Pane {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Overview, Self::Leaks, Self::TimeWait, Self::Connections, Self::Events, Self::Tuning];

    /// Its title.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Leaks => "Leaks",
            Self::TimeWait => "TIME_WAIT",
            Self::Connections => "Connections",
            Self::Events => "Events",
            Self::Tuning => "Tuning",
        }
    }

    /// Its place.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The one `by` places further, round and round.
    #[must_use]
    pub fn step(self, by: isize) -> Self {
        let count = Self::ALL.len() as isize;
        Self::ALL[(self.index() as isize + by).rem_euclid(count) as usize]
    }
}

/// What is to be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The pane in front.
    pub pane: Pane,
    /// Text that rows of connections and events must contain, in lower case; empty for all.
    pub search: String,
    /// The order of connections.
    pub order: ConnectionOrder,
    /// The other way round.
    pub reverse: bool,
    /// The connection whose timeline is shown.
    pub timeline: Option<ConnId>,
}

/// Orders of the table of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectionOrder {
    /// What may be wrong first, then oldest first.
    #[default]
    State,
    /// Oldest first.
    Age,
    /// By process.
    Owner,
    /// By local address and port.
    Local,
    /// By remote address and port.
    Remote,
    /// Most unread bytes first.
    Unread,
}

impl ConnectionOrder {
    /// All of them, in the order in which a key goes through them.
    pub const ALL: [Self; 6] = [Self::State, Self::Age, Self::Owner, Self::Local, Self::Remote, Self::Unread];

    /// Compares two connections; equal ones in the order in which they were seen, so that rows stand still.
    #[must_use]
    pub fn compare(self, a: &Open, b: &Open) -> Ordering {
        // Lower bounds are older than they look; the order by time is kept all the same.
        let age = || a.since.cmp(&b.since);
        let ordering = match self {
            Self::State => rank(a).cmp(&rank(b)).then_with(age),
            Self::Age => age(),
            Self::Owner => owner(a).cmp(&owner(b)).then_with(age),
            Self::Local => local(a).cmp(&local(b)),
            Self::Remote => remote(a).cmp(&remote(b)).then_with(age),
            Self::Unread => Reverse(a.unread).cmp(&Reverse(b.unread)).then_with(age),
        };
        ordering.then_with(|| a.conn.cmp(&b.conn))
    }
}

/// The place of a connection's state among those that are shown.
fn rank(open: &Open) -> usize {
    lanes::lane(open.state, open.phase).unwrap_or(lanes::LANES.len())
}

/// Unknown owners last.
fn owner(open: &Open) -> (bool, Option<(&[u8], u32)>) {
    (open.owner.is_none(), open.owner.as_ref().map(|owner| (owner.comm.bytes(), owner.pid)))
}

fn local(open: &Open) -> (SocketAddr, u32) {
    (open.flow.local_addr(), open.flow.netns)
}

fn remote(open: &Open) -> (SocketAddr, u32) {
    (open.flow.remote_addr(), open.flow.netns)
}

/// Rows kept of more than can be seen: far more than anybody reads, little enough to sort in a millisecond.
pub const ROWS: usize = 1_000;

/// The first [`ROWS`] of arbitrarily many in an order, in bounded memory.
#[derive(Debug)]
pub struct First<T, F: Fn(&T, &T) -> Ordering> {
    rows: Vec<T>,
    compare: F,
    total: u64,
}

impl<T, F: Fn(&T, &T) -> Ordering> First<T, F> {
    /// Nothing yet.
    pub fn new(compare: F) -> Self {
        Self { rows: Vec::new(), compare, total: 0 }
    }

    /// Adds one.
    pub fn push(&mut self, row: T) {
        self.total += 1;
        self.rows.push(row);
        // Cutting a list of twice the length costs a constant time for each row on average.
        if self.rows.len() >= 2 * ROWS {
            self.rows.select_nth_unstable_by(ROWS, &self.compare);
            self.rows.truncate(ROWS);
        }
    }

    /// In order, and how many there were in all.
    pub fn finish(mut self) -> (Vec<T>, u64) {
        self.rows.sort_unstable_by(&self.compare);
        self.rows.truncate(ROWS);
        (self.rows, self.total)
    }
}

/// What a search looks at: everything that the row shows of it but figures.
pub trait Searchable {
    /// Appends the text.
    fn text(&self, out: &mut String);

    /// Whether it contains the text that is looked for, given in lower case.
    fn contains(&self, wanted: &str) -> bool {
        if wanted.is_empty() {
            return true;
        }
        let mut text = String::with_capacity(128);
        self.text(&mut text);
        text.make_ascii_lowercase();
        wanted.split_whitespace().all(|word| text.contains(word))
    }
}

impl Searchable for Open {
    fn text(&self, out: &mut String) {
        use std::fmt::Write as _;
        // Writing to a String cannot fail.
        let _ = write!(out, "{} {} ", self.flow.local_addr(), self.flow.remote_addr());
        out.push_str(&transitions::state(self.state, self.phase));
        if let Some(owner) = &self.owner {
            let _ = write!(out, " {}[{}]", owner.comm, owner.pid);
        }
    }
}

impl Searchable for Seen {
    fn text(&self, out: &mut String) {
        use std::fmt::Write as _;
        let (flow, owner) = match &self.outcome {
            Outcome::Transition(transition) => (&transition.flow, transition.owner.as_ref()),
            Outcome::ConnectFailed { flow, owner, .. } => (flow, owner.as_ref()),
        };
        // Writing to a String cannot fail.
        let _ = write!(out, "{} {} ", flow.local_addr(), flow.remote_addr());
        match &self.outcome {
            Outcome::Transition(transition) => {
                let from = transitions::state(transition.from, transition.phase);
                let to = transitions::state(transition.to, transition.to_phase);
                let _ = write!(out, "{from} → {to} {}", transition.conn);
                out.push(' ');
                out.push_str(&transitions::end(transition));
            }
            Outcome::ConnectFailed { .. } => out.push_str("connect() failed"),
        }
        if let Some(owner) = owner {
            let _ = write!(out, " {}[{}]", owner.comm, owner.pid);
        }
    }
}

impl Searchable for Option<crate::snapshot::ProcessKey> {
    fn text(&self, out: &mut String) {
        out.push_str(&human::process(self.as_ref()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panes_go_round() {
        assert_eq!(Pane::Overview.step(-1), Pane::Tuning);
        assert_eq!(Pane::Tuning.step(1), Pane::Overview);
        assert!(Pane::ALL.iter().enumerate().all(|(index, pane)| pane.index() == index));
    }

    #[test]
    fn the_first_rows_are_the_first_of_all() {
        let mut first = First::new(u32::cmp);
        let mut dice = 1_u32;
        for _ in 0..10 * ROWS {
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            first.push(dice >> 8);
        }
        first.push(0);
        let (rows, total) = first.finish();
        assert_eq!((rows.len(), total, rows[0]), (ROWS, 10 * ROWS as u64 + 1, 0));
        assert!(rows.is_sorted());
    }
}
