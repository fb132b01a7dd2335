//! Who makes TIME_WAITs, towards whom, how they end, and how long local ports last.

use std::cmp::Reverse;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;

use crate::net::State as TcpState;
use crate::snapshot::{Destination, Snapshot};
use crate::tui::list::{List, RowKey};
use crate::tui::look::Look;
use crate::tui::ports::{Maker, Outlook, Towards};
use crate::tui::state::{Drawn, State};
use crate::tui::table::{self, Cell, Column, Rows, cell, figure, plain, words};
use crate::tui::text;
use crate::tui::theme::Theme;
use crate::tui::view::View;
use crate::views::human;
use crate::wheel::Expected;

use super::{histogram, lines, list, say, take, with_details};

/// Orders of the list of destinations.
pub const ORDERS: [&str; 3] = ["sockets", "growth", "destination"];
/// Processes on a small screen.
const MAKERS: u16 = 4;
/// From this width on the histogram stands beside the tables.
const WIDE: u16 = 130;

const MAKER_COLUMNS: [Column; 4] =
    [words("MADE BY", 22, 40, 0), figure("TIME_WAITS", 10, 0), figure("SHARE", 7, 0), figure("NEW/s", 7, 0)];

const TOWARDS_COLUMNS: [Column; 6] = [
    words("TOWARDS", 21, 46, 0),
    figure("NOW", 8, 0),
    figure("OF PORTS", 8, 1),
    figure("USED", 7, 2),
    figure("GROWTH/s", 8, 3),
    words("OUTLOOK", 14, 30, 0),
];

/// The destinations in order.
#[must_use]
pub fn rows<'v>(view: &'v View, list: &List) -> Vec<&'v Towards> {
    let mut rows: Vec<_> = view
        .time_waits
        .towards
        .iter()
        .filter(|towards| {
            let text = format!("{} {}", towards.to.local, towards.to.remote);
            list.search.split_whitespace().all(|word| text.contains(word))
        })
        .collect();
    match ORDERS[list.order % ORDERS.len()] {
        "growth" => rows.sort_by(|a, b| {
            let growth = |towards: &Towards| towards.per_second.unwrap_or(f64::MIN);
            growth(b).total_cmp(&growth(a))
        }),
        "destination" => rows.sort_by_key(|towards| (towards.to.remote, towards.to.local)),
        _ => rows.sort_by_key(|towards| Reverse(towards.sockets)),
    }
    if list.reverse {
        rows.reverse();
    }
    rows
}

/// Draws the pane.
pub fn draw(buf: &mut Buffer, area: Rect, state: &State, look: &Look, drawn: &mut Drawn) {
    let (view, theme) = (&state.view, look.theme);
    let mut rest = area;
    if area.width >= WIDE {
        rest.width = area.width / 3 * 2;
        let side = Rect { x: area.x + rest.width + 2, width: area.width - rest.width - 2, ..area };
        let lane = (TcpState::TimeWait, None);
        histogram::draw(buf, side, lane, view.snapshot.of(lane.0, lane.1), theme);
    }
    say(buf, &mut rest, &headline(view), theme.state(TcpState::TimeWait).patch(theme.heading()), theme, 2);
    say(buf, &mut rest, &ends(&view.snapshot), Style::new(), theme, 2);
    take(&mut rest, 1);
    let most = if rest.height > 24 { rest.height / 3 } else { MAKERS };
    let height = most.min(view.time_waits.makers.len().max(1) as u16) + 1;
    makers(buf, take(&mut rest, height), view, theme);
    take(&mut rest, 1);
    let towards = rows(view, state.list());
    if towards.is_empty() {
        let text = "No two TIME_WAITs lead to the same place: they take no local ports away. Where this host is \
                    the server, its TIME_WAITs never do.";
        return say(buf, &mut rest, text, theme.faint(), theme, 3);
    }
    let keys: Vec<_> = towards.iter().map(|towards| RowKey::Destination(towards.to)).collect();
    let cells = |row: usize| towards_cells(towards[row], theme);
    let (place, below) = with_details(rest, keys.len());
    list(buf, place, state, theme, (&TOWARDS_COLUMNS, &keys), &cells, drawn);
    if let (Some(below), Some(row)) = (below, state.list().position(&keys)) {
        let details = details(view, &towards[row].to, below.width, look);
        lines(buf, below, &details, theme);
    }
}

/// Who makes them, as many as there is room for.
pub fn makers(buf: &mut Buffer, area: Rect, view: &View, theme: Theme) {
    let makers = &view.time_waits.makers;
    let cells = |row: usize| maker_cells(&makers[row], view, theme);
    let room = usize::from(area.height.saturating_sub(1));
    let shown = Rows { count: makers.len().min(room), cells: &cells, cursor: None, top: 0 };
    table::draw(buf, area, &MAKER_COLUMNS, &shown, theme);
}

/// Where they lead, as many as there is room for.
pub fn destinations(buf: &mut Buffer, area: Rect, view: &View, theme: Theme) {
    let towards = rows(view, &List::default());
    let cells = |row: usize| towards_cells(towards[row], theme);
    let room = usize::from(area.height.saturating_sub(1));
    let shown = Rows { count: towards.len().min(room), cells: &cells, cursor: None, top: 0 };
    table::draw(buf, area, &TOWARDS_COLUMNS, &shown, theme);
}

/// `519 TIME_WAITs now, 22/s; each lasts 60.00 s to 62.05 s here (…)`.
fn headline(view: &View) -> String {
    let snapshot = &view.snapshot;
    let now = human::counted(snapshot.open_in(TcpState::TimeWait), "TIME_WAIT");
    let lane = crate::tui::lanes::lane(TcpState::TimeWait, None);
    let new = lane
        .and_then(|lane| view.trends.per_second(5_000_000_000, |sample| sample.began[lane]))
        .map_or_else(String::new, |rate| format!(", {}/s", text::rate(rate)));
    let timeout = snapshot.of(TcpState::TimeWait, None).and_then(|report| report.timeout);
    let expected = timeout.zip(snapshot.meta.hz).and_then(|(timeout, hz)| Expected::of_most(&timeout, hz));
    let lasts = expected.map_or_else(String::new, |expected| {
        format!(
            "; the timer gives each {} to {} (compiled in: no sysctl changes it)",
            human::duration(expected.base_ns),
            human::duration(expected.latest_ns)
        )
    });
    format!("{now}{new}{lasts}")
}

/// `Of 1,215 that ended 1,204 ran the full time, 11 were taken over by connect() or a SYN.`
fn ends(snapshot: &Snapshot) -> String {
    let Some(report) = snapshot.of(TcpState::TimeWait, None) else { return String::new() };
    if report.ends.total() == 0 {
        return "None has ended yet.".to_owned();
    }
    let total = report.ends.total();
    if report.ends.iter().any(|(name, count)| name == "expired" && count == total) {
        return format!("All {} that ended ran the full time.", human::count(total));
    }
    let phrases: Vec<_> = report
        .ends
        .iter()
        .map(|(name, count)| {
            let how = match name {
                "expired" => "ran the full time",
                "reused" => "were taken over by a new connection",
                "reset" => "ended by RST",
                "destroyed" => "were destroyed",
                "timed_out" => "timed out",
                "overflow" => "were not made (tcp_max_tw_buckets)",
                _ => "moved on",
            };
            format!("{} {how}", human::count(count))
        })
        .collect();
    format!("Of {} that ended {}.", human::count(total), human::list(&phrases))
}

fn maker_cells(maker: &Maker, view: &View, theme: Theme) -> Vec<Cell> {
    let tally = &view.snapshot.time_wait;
    let at_least = if tally.owners.undercount > 0 { "≥ " } else { "" };
    vec![
        plain(human::process(maker.process.as_ref())),
        plain(format!("{at_least}{}", human::count(maker.began))),
        plain(human::percent(maker.began, tally.total)),
        rate_cell(maker.per_second, theme),
    ]
}

fn rate_cell(rate: Option<f64>, theme: Theme) -> Cell {
    match rate {
        None => cell("?", theme.faint()),
        Some(rate) if rate < 0.0 => plain(format!("−{}", text::rate(-rate))),
        Some(rate) => plain(text::rate(rate)),
    }
}

fn towards_cells(towards: &Towards, theme: Theme) -> Vec<Cell> {
    let used = towards.ports.map_or_else(|| "?".to_owned(), |ports| human::percent(towards.sockets, ports));
    let (outlook, style) = outlook(towards, theme);
    vec![
        plain(place(&towards.to)),
        plain(human::count(towards.sockets)),
        plain(towards.ports.map_or_else(|| "?".to_owned(), human::count)),
        plain(used),
        rate_cell(towards.per_second, theme),
        cell(outlook, style),
    ]
}

/// Where to, and from where, unless that is the same.
fn place(to: &Destination) -> String {
    if to.local == to.remote.ip() {
        to.remote.to_string()
    } else {
        format!("{} from {}", to.remote, to.local)
    }
}

fn outlook(towards: &Towards, theme: Theme) -> (String, Style) {
    match towards.outlook {
        Outlook::Unknown => ("?".to_owned(), theme.faint()),
        Outlook::Steady => ("steady".to_owned(), theme.good()),
        Outlook::Settles(at) => (format!("settles at {}", human::count(at)), theme.good()),
        Outlook::Reused => ("reused after 1 s".to_owned(), theme.good()),
        Outlook::ExhaustedIn(seconds) => {
            let left = human::duration(seconds.saturating_mul(1_000_000_000));
            (format!("no port left in {left}"), theme.alarm())
        }
    }
}

/// All about one destination.
#[must_use]
pub fn details(view: &View, to: &Destination, width: u16, look: &Look) -> Vec<Line<'static>> {
    let theme = look.theme;
    let room = width.into();
    let mut lines = vec![
        Line::styled(
            theme.shown(&format!("TIME_WAITs from {} to {}", to.local, to.remote)),
            theme.state(TcpState::TimeWait).patch(theme.heading()),
        ),
        Line::raw(""),
    ];
    let mut paragraph = |text: &str| {
        lines.extend(text::paragraph(text, room, Style::new(), theme));
        lines.push(Line::raw(""));
    };
    let Some(towards) = view.time_waits.towards.iter().find(|towards| towards.to == *to) else {
        paragraph("There are none now, or they are no longer among the most frequent.");
        return lines;
    };
    let ports = towards.ports.map_or_else(
        || "how many local ports there are for it is not known".to_owned(),
        |ports| {
            let used = human::percent(towards.sockets, ports);
            format!("{} local ports may be used for it, of which they take {used}", human::count(ports))
        },
    );
    paragraph(&format!(
        "{} now, in network namespace {}; {ports}.",
        human::counted(towards.sockets, "socket"),
        to.netns
    ));
    paragraph(&match towards.outlook {
        Outlook::Unknown => "What will come of it is not known yet.".to_owned(),
        Outlook::Steady => "As many end as begin: they will not become more.".to_owned(),
        Outlook::Settles(at) => format!(
            "They still become more, because none lasts less than a minute; at the present rate they will come to \
             about {}, and stay there.",
            human::count(at)
        ),
        Outlook::Reused => {
            "tcp_tw_reuse lets connect() take them over after a second, so that ports do not run out."
                .to_owned()
        }
        Outlook::ExhaustedIn(seconds) => format!(
            "At the present growth no port is left in {}: connect() will fail with EADDRNOTAVAIL.",
            human::duration(seconds.saturating_mul(1_000_000_000))
        ),
    });
    let by: Vec<_> = view
        .snapshot
        .time_wait
        .remotes
        .top
        .iter()
        .filter(|((_, remote), _)| *remote == to.remote)
        .map(|((process, _), count)| format!("{} {}", human::process(process.as_ref()), human::count(*count)))
        .take(20)
        .collect();
    if !by.is_empty() {
        paragraph(&format!("Begun since tracing began, by process: {}.", by.join(", ")));
    }
    paragraph(
        "What helps, in this order: keep connections open and use them again (keep-alive, a pool); let the other \
         side close first; tcp_tw_reuse = 1 where clients run out of ports; a second source address or \
         destination port; a wider ip_local_port_range. tcp_fin_timeout does nothing here.",
    );
    lines
}
