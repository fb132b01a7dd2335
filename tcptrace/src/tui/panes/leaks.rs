//! Processes that keep sockets in CLOSE_WAIT.

use std::cmp::Reverse;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;

use crate::leaks::Leak;
use crate::net::State as TcpState;
use crate::tui::ansi;
use crate::tui::leaks::HELD_NS;
use crate::tui::list::{List, RowKey};
use crate::tui::look::Look;
use crate::tui::state::{Drawn, State};
use crate::tui::table::{self, Cell, Column, Rows, cell, figure, plain, words};
use crate::tui::text;
use crate::tui::view::View;
use crate::views::human;
use crate::views::leaks::{self as text_view, words as phrases};
use crate::views::paint::Paint;

use super::{lines, list, say, take, with_details};

/// Orders of the list.
pub const ORDERS: [&str; 4] = ["sockets", "oldest", "growth", "process"];
/// Sockets listed in the details.
const SOCKETS: usize = 1_000;

const COLUMNS: [Column; 8] = [
    words("PROCESS", 19, 40, 0),
    figure("SOCKETS", 7, 0),
    figure("OLDEST", 10, 1),
    words("SINCE", 15, 0, 5),
    figure("A MINUTE", 8, 2),
    figure("FDS", 12, 3),
    figure("EMFILE IN", 9, 6),
    words("MOSTLY", 14, 14, 4),
];

/// The rows in order; processes that hold the same sockets share one.
#[must_use]
pub fn rows<'v>(view: &'v View, list: &List) -> Vec<Vec<&'v Leak>> {
    let mut groups = text_view::group(&view.leaks.leaks);
    groups.retain(|group| {
        list.search.is_empty() || {
            let mut text = phrases::who(group);
            for leak in group {
                text.extend(leak.culprit.iter().filter_map(|culprit| culprit.cmdline.as_deref()));
                text.extend(leak.peers.iter().map(|(peer, _)| format!(" {peer}")));
            }
            let text = text.to_lowercase();
            list.search.split_whitespace().all(|word| text.contains(word))
        }
    });
    let first = |group: &Vec<&'v Leak>| group.first().copied();
    match ORDERS[list.order % ORDERS.len()] {
        "oldest" => groups.sort_by_key(|group| Reverse(first(group).and_then(Leak::oldest))),
        "growth" => groups.sort_by(|a, b| {
            let rate = |group| first(group).and_then(|leak| leak.rate).map_or(f64::MIN, |rate| rate.per_min);
            rate(b).total_cmp(&rate(a))
        }),
        "process" => groups.sort_by_key(|group| phrases::who(group)),
        _ => {}
    }
    if list.reverse {
        groups.reverse();
    }
    groups
}

/// What the row is about.
#[must_use]
pub fn key(group: &[&Leak]) -> RowKey {
    let leak = group.first();
    let kind = leak.and_then(|leak| leak.sockets.first()).map(|socket| socket.kind);
    match leak.and_then(|leak| leak.pid()) {
        Some(pid) => RowKey::Leak(Some(pid), None),
        None => RowKey::Leak(None, kind),
    }
}

/// Draws the pane.
pub fn draw(buf: &mut Buffer, area: Rect, state: &State, look: &Look, drawn: &mut Drawn) {
    let (view, theme) = (&state.view, look.theme);
    let mut rest = area;
    let groups = rows(view, state.list());
    let (sentence, style) = sentence(view, theme.good(), theme.alarm());
    say(buf, &mut rest, &sentence, style, theme, 2);
    if let Some(failed) = &view.leaks_failed {
        say(buf, &mut rest, &format!("the last look failed: {failed}"), theme.warning(), theme, 2);
    }
    take(&mut rest, 1);
    if view.leaks.is_clean() {
        let advice = "A socket is in CLOSE_WAIT from the moment its peer closes until its own process does: \
                      normally microseconds. One that stays is a leak; nothing but that process ends it, no timeout \
                      and no sysctl.";
        return say(buf, &mut rest, advice, theme.faint(), theme, 4);
    }
    let keys: Vec<_> = groups.iter().map(|group| key(group)).collect();
    let cells = |row: usize| cells(&groups[row], view, look);
    let position = state.list().position(&keys);
    let chosen = position.and_then(|row| groups.get(row)).and_then(|group| group.first().copied());
    if let ((table, Some(below)), Some(row)) = (with_details(rest, keys.len()), position) {
        list(buf, table, state, theme, (&COLUMNS, &keys), &cells, drawn);
        let details = details(view, keys[row], area.width, look);
        return lines(buf, below, &details, theme);
    }
    let foot_height = u16::from(rest.height > 6) * 4;
    let table_height = rest.height.saturating_sub(foot_height);
    let table = take(&mut rest, table_height);
    list(buf, table, state, theme, (&COLUMNS, &keys), &cells, drawn);
    if let Some(leak) = chosen.filter(|_| rest.height > 1) {
        take(&mut rest, 1);
        verdict(buf, rest, leak, look);
    }
}

/// The table alone, in its first order.
pub fn table(buf: &mut Buffer, area: Rect, view: &View, look: &Look) {
    let groups = rows(view, &List::default());
    let cells = |row: usize| cells(&groups[row], view, look);
    let rows = Rows { count: groups.len(), cells: &cells, cursor: None, top: 0 };
    table::draw(buf, area, &COLUMNS, &rows, look.theme);
}

fn sentence(view: &View, good: Style, alarm: Style) -> (String, Style) {
    let report = &view.leaks;
    let young = report.totals.young;
    let passing = if young == 0 {
        String::new()
    } else {
        format!("; {} for less than {}", human::count(young), text::elapsed(HELD_NS))
    };
    if report.is_clean() {
        let text =
            format!("No leak: no socket has been in CLOSE_WAIT for {} or longer", text::elapsed(HELD_NS));
        return (text + &passing, good);
    }
    let growth = report
        .growth
        .map_or_else(String::new, |rate| format!(", {}", crate::tui::diagnosis::growth(rate.per_min)));
    let processes = text_view::group(&report.leaks).len() as u64;
    let text = format!(
        "{} leaked, {}{growth}{passing}",
        human::counted(report.totals.sockets, "socket"),
        match processes {
            1 => "by one process".to_owned(),
            n => format!("by {} processes", human::count(n)),
        },
    );
    (text, alarm)
}

fn cells(group: &[&Leak], view: &View, look: &Look) -> Vec<Cell> {
    let theme = look.theme;
    let Some(leak) = group.first() else { return Vec::new() };
    let age = leak.oldest().map(|age| view.leak_age(age));
    let since = age.map_or_else(
        || "?".to_owned(),
        |age| {
            let at = look.clock(view, view.now().saturating_sub(age.ns));
            if age.is_lower_bound { format!("before {at}") } else { at }
        },
    );
    let emfile = leak.exhausted_in_s().map(|seconds| human::duration(seconds.saturating_mul(1_000_000_000)));
    vec![
        cell(phrases::who(group), theme.state(TcpState::CloseWait).patch(theme.heading())),
        plain(human::count(leak.count())),
        plain(age.map_or_else(|| "?".to_owned(), human::age)),
        plain(since),
        plain(phrases::growth_cell(leak)),
        plain(phrases::fds_cell(leak)),
        emfile.map_or_else(|| cell("-", theme.faint()), |text| cell(text, theme.alarm())),
        plain(phrases::mostly(leak)),
    ]
}

/// What is wrong with the one under the cursor; and what to do, where that is one thing.
fn verdict(buf: &mut Buffer, area: Rect, leak: &Leak, look: &Look) {
    let mut rest = area;
    let mut kinds: Vec<_> = leak.kinds.iter().collect();
    kinds.sort_by_key(|(_, tally)| Reverse(tally.sockets));
    for (kind, tally) in &kinds {
        let advice = if kinds.len() == 1 { kind.rule().advice() } else { "" };
        let count = human::counted(tally.sockets, "socket");
        let text = format!("{count}: {}. {advice}", kind.rule().verdict(**tally));
        let most = usize::from(rest.height);
        say(buf, &mut rest, &text, Style::new(), look.theme, most);
    }
}

/// All about one of them.
#[must_use]
pub fn details(view: &View, wanted: RowKey, width: u16, look: &Look) -> Vec<Line<'static>> {
    let groups = text_view::group(&view.leaks.leaks);
    let Some(group) = groups.iter().find(|group| key(group) == wanted) else {
        return vec![Line::raw("It leaks no more.")];
    };
    let options = text_view::Options {
        width: width.into(),
        ascii: look.theme.ascii,
        paint: Paint { color: look.theme.has_color() },
        sockets: SOCKETS,
        stacks: group.iter().any(|leak| !leak.sites.is_empty()),
        hints: false,
        wall: view.snapshot.meta.wall,
        zone: look.zone.clone(),
        ..text_view::Options::default()
    };
    let mut out = Vec::new();
    // Writing to memory cannot fail.
    let _ = text_view::write_group(&view.leaks, group, &options, &mut out);
    ansi::lines(&String::from_utf8_lossy(&out), look.theme)
}
