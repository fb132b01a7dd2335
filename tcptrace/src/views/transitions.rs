//! `watch` without a screen: a line per transition, in columns.

use std::io::{self, Write};
use std::net::SocketAddr;

use jiff::tz::TimeZone;

use crate::net::{Flow, State};
use crate::outcome::{Dwell, End, Outcome, Owner, Phase, Transition};
use crate::snapshot::WallClock;

use super::human;
use super::paint::Paint;

/// How the lines are to look.
#[derive(Clone, Debug)]
pub struct Options {
    /// Colours or none.
    pub paint: Paint,
    /// Plain ASCII instead of arrows and µ.
    pub ascii: bool,
    /// A column with the network namespace.
    pub show_netns: bool,
    /// From moments to times.
    pub wall: WallClock,
    /// The time zone to show times in.
    pub zone: TimeZone,
}

/// Makes the lines. Columns begin as wide as is usual and grow when something longer comes, so that they stay
/// aligned from then on.
#[derive(Clone, Debug)]
pub struct Columns {
    options: Options,
    widths: [usize; COLUMNS],
    line: String,
}

const COLUMNS: usize = 8;
const TITLES: [&str; COLUMNS] = ["TIME", "CONN", "NETNS", "OWNER", "LOCAL", "REMOTE", "TRANSITION", "DWELL"];
const NETNS: usize = 2;
const TRANSITION: usize = 6;
const DWELL: usize = 7;
/// Wide enough for IPv4 and most names; "ESTABLISHED → CLOSE_WAIT".
const USUAL_WIDTHS: [usize; COLUMNS] = [12, 5, 10, 16, 18, 18, 24, 8];

impl Columns {
    /// Columns of the usual width.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options, widths: USUAL_WIDTHS, line: String::new() }
    }

    /// Writes the header, as wide as the columns are now.
    ///
    /// # Errors
    /// What the writer returns.
    pub fn write_header(&mut self, out: &mut impl Write) -> io::Result<()> {
        let show_netns = self.options.show_netns;
        let heading = |text: &str| self.options.paint.heading(text);
        let mut line = String::new();
        for (column, title) in
            TITLES.into_iter().enumerate().filter(|&(column, _)| column != NETNS || show_netns)
        {
            line.push_str(&pad(title, &heading(title), self.widths[column], column == DWELL));
        }
        line.push_str(&heading("END"));
        line.push('\n');
        out.write_all(line.as_bytes())
    }

    /// Writes the line of an outcome in one call of `write`. `container` names the container of a cgroup v2 id.
    ///
    /// # Errors
    /// What the writer returns.
    pub fn write_outcome(
        &mut self,
        outcome: &Outcome,
        container: &dyn Fn(u64) -> Option<String>,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let owner = match outcome {
            Outcome::Transition(transition) => &transition.owner,
            Outcome::ConnectFailed { owner, .. } => owner,
        };
        let owner = owner.as_ref().map_or_else(|| "?".to_owned(), |owner| shown_owner(owner, container));
        let row = match outcome {
            Outcome::Transition(transition) => self.transition_row(transition, owner),
            Outcome::ConnectFailed { at, flow, .. } => Row {
                cells: self.cells(*at, None, flow, owner, "SYN_SENT → CLOSE", "-".to_owned()),
                states: Some((State::SynSent, State::Close)),
                end: "connect() failed: no free local port, or no route".to_owned(),
                is_alarm: true,
            },
        };
        self.write_row(&row, out)
    }

    fn transition_row(&self, transition: &Transition, owner: String) -> Row {
        let Transition { from, to, .. } = *transition;
        let states = format!("{} → {}", state(from, transition.phase), state(to, transition.to_phase));
        let dwell = if from == State::Close { "-".to_owned() } else { dwell(transition.dwell) };
        Row {
            cells: self.cells(transition.at, Some(transition.conn), &transition.flow, owner, &states, dwell),
            states: Some((from, to)),
            end: end(transition),
            is_alarm: matches!(transition.end, Some(End::Reset | End::Destroyed | End::Overflow)),
        }
    }

    fn cells(
        &self,
        at: u64,
        conn: Option<u64>,
        flow: &Flow,
        owner: String,
        states: &str,
        dwell: String,
    ) -> [String; COLUMNS] {
        let time = self.options.wall.time(at).to_zoned(self.options.zone.clone());
        [
            time.strftime("%H:%M:%S%.3f").to_string(),
            conn.map_or_else(|| "-".to_owned(), |conn| conn.to_string()),
            flow.netns.to_string(),
            owner,
            endpoint(flow.local_addr()),
            endpoint(flow.remote_addr()),
            states.to_owned(),
            dwell,
        ]
        .map(|cell| if self.options.ascii { human::ascii(&cell) } else { cell })
    }

    fn write_row(&mut self, row: &Row, out: &mut impl Write) -> io::Result<()> {
        let Options { paint, show_netns, .. } = self.options;
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        for (column, cell) in
            row.cells.iter().enumerate().filter(|&(column, _)| column != NETNS || show_netns)
        {
            self.widths[column] = self.widths[column].max(cell.chars().count());
            let painted = match (column, row.states) {
                (TRANSITION, Some((from, to))) => paint_states(paint, from, to, cell),
                _ => cell.clone(),
            };
            line.push_str(&pad(cell, &painted, self.widths[column], column == DWELL));
        }
        let end = if self.options.ascii { human::ascii(&row.end) } else { row.end.clone() };
        line.push_str(&if row.is_alarm { paint.alarm(&end) } else { end });
        line.truncate(line.trim_end().len());
        line.push('\n');
        self.line = line;
        out.write_all(self.line.as_bytes())
    }
}

struct Row {
    cells: [String; COLUMNS],
    states: Option<(State, State)>,
    end: String,
    is_alarm: bool,
}

/// As many digits of a container's id as its runtime shows: enough to name it in a filter.
const CONTAINER_DIGITS: usize = 12;

/// `nginx[812]`, with its container where there is one: `nginx[812]@3f2a1b9c0d4e`.
fn shown_owner(owner: &Owner, container: &dyn Fn(u64) -> Option<String>) -> String {
    let process = format!("{}[{}]", owner.comm, owner.pid);
    let Some(container) = container(owner.cgroup_id) else { return process };
    let id: String = container.chars().take(CONTAINER_DIGITS).collect();
    format!("{process}@{}", crate::text::escape(id.as_bytes()))
}

/// A state and, for FIN_WAIT2, its phase.
#[must_use]
pub fn state(state: State, phase: Option<Phase>) -> String {
    match phase {
        Some(Phase::HalfClosed) => format!("{state} half-closed"),
        Some(Phase::Orphaned) => format!("{state} orphaned"),
        None => state.to_string(),
    }
}

/// A dwell, with `≥` where it is a lower bound and `?` where it is not known.
#[must_use]
pub fn dwell(dwell: Option<Dwell>) -> String {
    match dwell {
        None => "?".to_owned(),
        Some(Dwell { ns, is_lower_bound: true }) => format!("≥ {}", human::duration(ns)),
        Some(Dwell { ns, is_lower_bound: false }) => human::duration(ns),
    }
}

/// Why a dwell ended, in a word or two.
#[must_use]
pub const fn ending(end: End) -> &'static str {
    match end {
        End::Expired => "expired",
        End::Reused => "reused",
        End::Reset => "reset",
        End::Destroyed => "destroyed",
        End::TimedOut => "timed out",
        End::Overflow => "overflow: no TIME_WAIT was made",
    }
}

/// Why its dwell ended, and what else is known of that; empty where it simply went on.
#[must_use]
pub fn end(transition: &Transition) -> String {
    let mut notes = Vec::new();
    notes.extend(transition.end.map(|end| ending(end).to_owned()));
    if transition.rearmed > 0 {
        notes.push(format!("re-armed {}×", transition.rearmed));
    }
    if let Some(ns) = transition.as_full_socket_ns {
        notes.push(format!("{} of it as a full socket", human::duration(ns)));
    }
    notes.join(", ")
}

/// An address and port; a port that is not chosen yet is `*`.
#[must_use]
pub fn endpoint(addr: SocketAddr) -> String {
    match addr {
        SocketAddr::V4(v4) if v4.port() == 0 => format!("{}:*", v4.ip()),
        SocketAddr::V6(v6) if v6.port() == 0 => format!("[{}]:*", v6.ip()),
        _ => addr.to_string(),
    }
}

/// `painted` is `plain` with colours, which take no room.
fn pad(plain: &str, painted: &str, width: usize, right: bool) -> String {
    let room = " ".repeat(width.saturating_sub(plain.chars().count()));
    if right { format!("{room}{painted}  ") } else { format!("{painted}{room}  ") }
}

/// Both sides of the arrow in the colours of their states.
fn paint_states(paint: Paint, from: State, to: State, cell: &str) -> String {
    let arrow = if cell.contains(" → ") { " → " } else { " -> " };
    match cell.split_once(arrow) {
        Some((old, new)) => format!("{}{arrow}{}", paint.state(from, old), paint.state(to, new)),
        None => cell.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::event::Comm;
    use crate::net::Addr;
    use crate::outcome::Evidence;

    fn options() -> Options {
        Options {
            paint: Paint::default(),
            ascii: false,
            show_netns: false,
            wall: WallClock { offset_ns: 1_767_323_040_000_000_000 },
            zone: TimeZone::UTC,
        }
    }

    fn flow(local: &str, local_port: u16, remote: &str, remote_port: u16) -> Flow {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        Flow { local: addr(local), remote: addr(remote), netns: 4_026_531_840, local_port, remote_port }
    }

    fn outcomes() -> Vec<Outcome> {
        let owner = |comm: &[u8]| {
            Some(Owner { pid: 812, comm: Comm::from_bytes(comm), evidence: Evidence::Close, cgroup_id: 0 })
        };
        let contained = owner(b"java").map(|owner| Owner { cgroup_id: 33, ..owner });
        let flow_of_first = flow("10.0.0.1", 44_312, "10.0.0.5", 3306);
        let first = Transition {
            owner: owner(b"nginx"),
            ..Transition::new(5_000_000_042, 17, flow_of_first, State::Close, State::SynSent)
        };
        let dwell = |ns| Some(Dwell { ns, is_lower_bound: false });
        [
            Transition { flow: flow("0.0.0.0", 0, "10.0.0.5", 3306), ..first },
            Transition { from: State::FinWait2, to: State::TimeWait, dwell: dwell(2424), ..first },
            Transition {
                at: 66_020_000_000,
                from: State::TimeWait,
                to: State::Close,
                dwell: dwell(61_020_000_000),
                end: Some(End::Expired),
                rearmed: 2,
                ..first
            },
            Transition {
                at: 70_000_000_000,
                conn: 18,
                flow: flow("2001:db8::1234:5678", 443, "2001:db8::9", 51_000),
                from: State::CloseWait,
                to: State::Close,
                dwell: Some(Dwell { ns: 7_200_000_000_000, is_lower_bound: true }),
                end: Some(End::Reset),
                owner: None,
                ..first
            },
            Transition {
                at: 131_600_000_000,
                from: State::FinWait2,
                phase: Some(Phase::Orphaned),
                to: State::Close,
                dwell: dwell(61_600_000_000),
                end: Some(End::TimedOut),
                as_full_socket_ns: Some(30_000_000_000),
                owner: owner(b"evil\x1b[2J\n"),
                ..first
            },
        ]
        .map(Outcome::Transition)
        .into_iter()
        .chain([Outcome::ConnectFailed {
            at: 131_700_000_000,
            flow: flow("10.0.0.1", 0, "10.0.0.5", 3306),
            owner: contained,
        }])
        .collect()
    }

    fn shown(options: Options) -> String {
        let (mut columns, mut out) = (Columns::new(options), Vec::new());
        let container = |id| (id == 33).then(|| "3f2a1b9c0d4e5f60718293a4b5c6d7e8".to_owned());
        columns.write_header(&mut out).unwrap();
        for outcome in outcomes() {
            columns.write_outcome(&outcome, &container, &mut out).unwrap();
        }
        columns.write_header(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines() {
        insta::assert_snapshot!(shown(options()));
    }

    #[test]
    fn lines_in_ascii_with_namespaces() {
        let text = shown(Options { ascii: true, show_netns: true, ..options() });
        assert!(text.is_ascii());
        insta::assert_snapshot!(text);
    }

    #[test]
    fn colours_take_no_room() {
        let text = shown(Options { paint: Paint { color: true }, ..options() });
        let plain: String = anstream::adapter::strip_str(&text).to_string();
        assert_ne!(text, plain);
        assert_eq!(plain, shown(options()));
        assert!(!text.contains("\x1b[2J"), "a task name drives no terminal");
    }
}
