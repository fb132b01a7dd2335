//! `states`: a census as text and as JSON.

use std::io::{self, Write};

use super::json::{self, LeakProcess, StatesBy, Whose};
use super::page::Page;
use super::paint::Paint;
use super::{human, json::Line};
use crate::census::{Census, Counts, Group};
use crate::inventory::process::Process;
use crate::net::State;
use crate::snapshot::{Key, KeyKind};

/// How the text is to look.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Columns to fill at most.
    pub width: usize,
    /// Plain ASCII.
    pub ascii: bool,
    /// Colours or none.
    pub paint: Paint,
    /// Groups shown at most; the rest is one row.
    pub top: usize,
}

/// Text for a person.
///
/// # Errors
/// What the writer returns.
pub fn write(
    census: &Census,
    by: Option<KeyKind>,
    options: &Options,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut page = Page::new(options.width, options.ascii, options.paint);
    page.line(&heading(census));
    if census.counts.total() > 0 {
        page.blank();
        let rows: Vec<_> = census.counts.iter().map(|(state, count)| row(census, state, count)).collect();
        page.table_with_words(&["STATE", "SOCKETS", ""], &rows, &[0, 2]);
    }
    if census.mptcp.total() > 0 {
        page.blank();
        page.paragraph(&mptcp(&census.mptcp));
    }
    if let Some(by) = by.filter(|_| !census.groups.is_empty()) {
        page.blank();
        groups(&mut page, census, by, options.top);
    }
    out.write_all(page.finish().as_bytes())
}

/// `14,223 TCP sockets in 3 network namespaces`.
fn heading(census: &Census) -> String {
    let sockets = human::counted(census.counts.total(), "TCP socket");
    match census.namespaces[..] {
        [netns] => format!("{sockets} in network namespace {netns}"),
        ref several => format!("{sockets} in {}", human::counted(several.len() as u64, "network namespace")),
    }
}

fn row(census: &Census, state: State, count: u64) -> Vec<String> {
    let mut remarks = Vec::new();
    if state == State::FinWait2 {
        let half_closed = count - census.orphaned_fin_wait2;
        remarks.extend(part(census.orphaned_fin_wait2, "orphaned"));
        remarks.extend(part(half_closed, "half-closed"));
    }
    remarks.extend(part(census.not_accepted.get(state), "not accepted yet"));
    vec![state.to_string(), human::count(count), remarks.join(", ")]
}

fn part(count: u64, what: &str) -> Option<String> {
    (count > 0).then(|| format!("{} {what}", human::count(count)))
}

fn mptcp(counts: &Counts) -> String {
    let states: Vec<_> =
        counts.iter().map(|(state, count)| format!("{} {state}", human::count(count))).collect();
    format!(
        "Counted apart, as ss does: {} ({}). Subflows are counted above.",
        human::counted(counts.total(), "MPTCP socket"),
        human::list(&states)
    )
}

/// A row for each key, a column for each state that there is.
fn groups(page: &mut Page, census: &Census, by: KeyKind, top: usize) {
    let states: Vec<State> = census.counts.iter().map(|(state, _)| state).collect();
    let with_place = by == KeyKind::Process && census.groups.iter().any(|group| place(group).is_some());
    let mut header = vec![by.name().to_uppercase()];
    if with_place {
        header.push("UNIT OR CONTAINER".to_owned());
    }
    header.push("SOCKETS".to_owned());
    // On two lines, so that ten states find room in 100 columns.
    header.extend(states.iter().map(|state| state.name().replacen('_', "\n", 1)));

    let (shown, rest) = census.groups.split_at(top.min(census.groups.len()));
    let mut rows: Vec<Vec<String>> = Vec::with_capacity(shown.len() + 1);
    let mut add = |name: String, place: String, counts: &Counts| {
        let mut cells = vec![name];
        cells.extend(with_place.then_some(place));
        cells.push(human::count(counts.total()));
        let figure = |state: &State| match counts.get(*state) {
            0 => "-".to_owned(),
            count => human::count(count),
        };
        cells.extend(states.iter().map(figure));
        rows.push(cells);
    };
    for group in shown {
        add(name(&group.key, census), place(group).unwrap_or_default(), &group.counts);
    }
    if !rest.is_empty() {
        let mut sum = Counts::default();
        rest.iter().for_each(|group| sum.merge(&group.counts));
        add(format!("{} more", human::count(rest.len() as u64)), String::new(), &sum);
    }
    let header: Vec<_> = header.iter().map(String::as_str).collect();
    page.table_with_words(&header, &rows, if with_place { &[0, 1] } else { &[0] });
    if census.groups_overlap() {
        page.blank();
        page.note("A socket that several processes hold is counted under each of them, and once above.");
    }
}

fn name(key: &Key, census: &Census) -> String {
    match key {
        Key::Process(None) if census.owners_complete => "no process".to_owned(),
        Key::Process(None) => "none or unknown".to_owned(),
        Key::Container(None) if census.owners_complete => "no container".to_owned(),
        Key::Container(None) => "none or unknown".to_owned(),
        key => human::key(key),
    }
}

/// Where a process runs: its container, else its unit.
fn place(group: &Group) -> Option<String> {
    let workload = group.process.as_ref().map(Process::workload)?;
    workload.container.as_ref().map(ToString::to_string).or_else(|| workload.unit.clone())
}

/// The census as one JSON line. `netns` is the only namespace that was asked for.
#[must_use]
pub fn line(census: &Census, netns: Option<u32>) -> Line {
    Line::States(json::States {
        netns,
        counts: census.counts.iter().collect(),
        mptcp: census.mptcp.iter().collect(),
        by: census.groups.iter().filter_map(states_by).collect(),
    })
}

fn states_by(group: &Group) -> Option<StatesBy> {
    let whose = match &group.key {
        Key::Process(_) => Whose::Process(group.process.as_ref().map(LeakProcess::from)),
        Key::Port(port) => Whose::Port(*port),
        Key::Peer(addr) => Whose::Peer(*addr),
        Key::Netns(netns) => Whose::Netns(*netns),
        Key::Container(id) => Whose::Container(id.clone()),
        // A census keeps every key apart.
        Key::Other(_) => return None,
    };
    Some(StatesBy { whose, counts: group.counts.iter().collect() })
}

#[cfg(test)]
#[path = "states_tests.rs"]
mod tests;
