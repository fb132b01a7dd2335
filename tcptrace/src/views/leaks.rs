//! Leaks as text, for a person whose server is going down: who and what first, then where, how old and how fast,
//! then what to do.

mod section;
pub mod words;

use std::collections::BTreeSet;
use std::io::{self, Write};

use jiff::tz::TimeZone;

use super::human;
use super::page::Page;
use super::paint::Paint;
use crate::leaks::{Kind, Leak, LeakReport};
use crate::snapshot::WallClock;

/// From this width on there is room for every column.
const WIDE: usize = 72;

/// How the page is to look, and what stands behind it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Columns to fill at most.
    pub width: usize,
    /// Plain ASCII instead of bars and arrows.
    pub ascii: bool,
    /// Colours or none.
    pub paint: Paint,
    /// The filters in force, in words; empty without any.
    pub filters: String,
    /// Processes that are told about at length, and that stand in the table at most.
    pub sections: usize,
    /// See `sections`.
    pub rows: usize,
    /// Sockets of a process that are listed at most.
    pub sockets: usize,
    /// Stacks were asked for.
    pub stacks: bool,
    /// Say which options tell more.
    pub hints: bool,
    /// Turns moments into times.
    pub wall: WallClock,
    /// The time zone to show times in.
    pub zone: TimeZone,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            width: 80,
            ascii: false,
            paint: Paint::default(),
            filters: String::new(),
            sections: 5,
            rows: 40,
            sockets: 5,
            stacks: false,
            hints: true,
            wall: WallClock::default(),
            zone: TimeZone::UTC,
        }
    }
}

/// Writes the page in one call of `write`.
///
/// # Errors
/// What the writer returns.
pub fn write(report: &LeakReport, options: &Options, out: &mut impl Write) -> io::Result<()> {
    let mut page = Page::new(options.width, options.ascii, options.paint);
    headline(report, options, &mut page);
    if report.is_clean() {
        not_seen(report, &mut page);
        return out.write_all(page.finish().as_bytes());
    }
    let groups = group(&report.leaks);
    if groups.len() > 1 {
        table(report, &groups, options, &mut page);
    }
    let mut told = BTreeSet::new();
    for leaks in groups.iter().take(options.sections) {
        section::write(report, leaks, &mut told, options, &mut page);
    }
    let untold = groups.len().saturating_sub(options.sections);
    if untold > 0 {
        page.blank();
        page.paragraph(&format!(
            "{} more: --pid tells of one, --json of all.",
            words::processes(untold as u64)
        ));
    }
    ending(report, options, &mut page);
    not_seen(report, &mut page);
    out.write_all(page.finish().as_bytes())
}

/// Writes a line and a table, for somebody who has seen the whole page before.
///
/// # Errors
/// What the writer returns.
pub fn write_update(report: &LeakReport, options: &Options, out: &mut impl Write) -> io::Result<()> {
    let mut page = Page::new(options.width, options.ascii, options.paint);
    let time = options.wall.time(report.at).to_zoned(options.zone.clone()).strftime("%H:%M:%S").to_string();
    page.blank();
    if report.is_clean() {
        let young = human::counted(report.totals.young, "socket");
        page.good(&format!("{time}  no leak; {young} in CLOSE_WAIT for less than {}", words::limit(report)));
    } else {
        page.alarm(&format!("{time}  {}", words::verdict(report)));
        table(report, &group(&report.leaks), options, &mut page);
    }
    out.write_all(page.finish().as_bytes())
}

/// Writes all about processes that hold the same sockets, as [`group`] gives them.
///
/// # Errors
/// What the writer returns.
pub fn write_group(
    report: &LeakReport,
    group: &[&Leak],
    options: &Options,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut page = Page::new(options.width, options.ascii, options.paint);
    section::write(report, group, &mut BTreeSet::new(), options, &mut page);
    out.write_all(page.finish().trim_start_matches('\n').as_bytes())
}

/// Processes that hold the very same sockets (after fork) are one story. In the order of the first of each.
#[must_use]
pub fn group(leaks: &[Leak]) -> Vec<Vec<&Leak>> {
    let mut groups: Vec<Vec<&Leak>> = Vec::new();
    for leak in leaks {
        let is_same = |first: &Leak| {
            leak.culprit.is_some()
                && first.culprit.is_some()
                && leak.pid().is_some_and(|pid| first.shared_with.contains(&pid))
                && first.sockets.len() == leak.sockets.len()
                && first
                    .sockets
                    .iter()
                    .map(|socket| socket.flow)
                    .eq(leak.sockets.iter().map(|socket| socket.flow))
        };
        match groups.iter_mut().find(|group| group.first().is_some_and(|first| is_same(first))) {
            Some(group) => group.push(leak),
            None => groups.push(vec![leak]),
        }
    }
    groups
}

fn headline(report: &LeakReport, options: &Options, page: &mut Page) {
    let wanted = if options.filters.is_empty() {
        String::new()
    } else {
        format!(" (of what {} wants)", options.filters)
    };
    if report.is_clean() {
        let seen = if report.notes.is_empty() { "" } else { " seen" };
        page.good(&format!("No leak{seen}: {}{wanted}.", words::none(report)));
        page.paragraph(&words::looked_at(report));
        return;
    }
    page.alarm(&format!("{}{wanted}.", words::verdict(report)));
    page.paragraph(&words::looked_at(report));
}

fn table(report: &LeakReport, groups: &[Vec<&Leak>], options: &Options, page: &mut Page) {
    let with_growth = report.watched_ns.is_some();
    let rows: Vec<_> = groups
        .iter()
        .take(options.rows)
        .filter_map(|group| {
            let leak = group.first()?;
            let mut row = vec![
                words::who(group),
                human::count(leak.count()),
                leak.oldest().map_or_else(|| "?".to_owned(), human::age),
            ];
            if with_growth {
                row.push(words::growth_cell(leak));
            }
            row.push(words::fds_cell(leak));
            if options.width >= WIDE {
                row.push(words::mostly(leak).to_owned());
            }
            Some(row)
        })
        .collect();
    let mut header = vec!["PROCESS", "SOCKETS", "OLDEST"];
    if with_growth {
        header.push("A MINUTE");
    }
    header.push("FDS");
    if options.width >= WIDE {
        header.push("MOSTLY");
    }
    page.blank();
    page.table(&header, &rows);
    let more = groups.len().saturating_sub(options.rows);
    if more > 0 {
        page.paragraph(&format!("… and {} more.", human::count(more as u64)));
    }
}

fn ending(report: &LeakReport, options: &Options, page: &mut Page) {
    let has = |kind| report.totals.kinds.contains_key(&kind);
    page.blank();
    if [Kind::EofConsumed, Kind::EofUnread, Kind::DataUnread, Kind::Held].into_iter().any(has) {
        page.paragraph(
            "The peer has closed; only close() by the process that holds the socket ends CLOSE_WAIT, or the end of \
             that process. No timeout and no sysctl does: tcp_fin_timeout, tcp_tw_* and tcp_max_* act on other \
             states, and keepalive ends it only when the peer's host is gone.",
        );
    }
    let mut hints = Vec::new();
    if options.hints && report.watched_ns.is_none() {
        hints.push("--duration 1m measures growth and when descriptors run out");
    }
    if options.hints && !options.stacks {
        hints.push("--stacks names the line of code that is told EOF");
    }
    if !hints.is_empty() {
        page.note(&format!("{}.", hints.join("; ")));
    }
}

fn not_seen(report: &LeakReport, page: &mut Page) {
    if report.notes.is_empty() {
        return;
    }
    page.heading("Not seen", Paint::heading);
    for note in &report.notes {
        page.item("- ", &crate::text::escape(note.as_bytes()));
    }
}

#[cfg(test)]
mod tests;
