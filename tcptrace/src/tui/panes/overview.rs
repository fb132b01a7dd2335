//! What is wrong, how many sockets are in which state, how long they stay there.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::net::State as TcpState;
use crate::snapshot::StateReport;
use crate::tui::diagnosis::{Finding, Severity, diagnose};
use crate::tui::lanes::{self, CLOSING, LANES, Lane};
use crate::tui::look::Look;
use crate::tui::table::{self, Cell, Column, Rows, cell, figure, plain, words};
use crate::tui::text;
use crate::tui::theme::Theme;
use crate::tui::view::View;
use crate::views::human;
use crate::views::leaks as leak_views;

use super::{histogram, leaks, take, time_wait};

/// Rates are those of the last seconds.
const RATE_NS: u64 = 5_000_000_000;
/// Lines of findings on a small screen.
const FINDINGS: usize = 2;
/// From this height on every state has a row, and findings have more room.
const TALL: u16 = 38;
/// Rows of the table on a small screen: the closing states and ESTABLISHED.
const SHORT: usize = CLOSING + 1;
/// From this width on the four histograms stand side by side.
const WIDE: u16 = 150;
/// Least lines for the lists below the histograms.
const LISTS: u16 = 8;

/// Draws the pane.
pub fn draw(buf: &mut Buffer, area: Rect, view: &View, look: &Look, reduced: bool) {
    let is_tall = area.height >= TALL;
    let mut rest = area;
    let findings = finding_lines(view, look, area.width, if is_tall { 6 } else { FINDINGS });
    for (line, style) in findings {
        put(buf, take(&mut rest, 1), &line, style);
    }
    if is_tall {
        take(&mut rest, 1);
    }
    let shown = if is_tall { LANES.len() } else { SHORT };
    states(buf, take(&mut rest, shown as u16 + 1), view, look.theme, shown);
    if !is_tall && !reduced {
        others(buf, take(&mut rest, 1), view, look.theme);
    }
    if reduced {
        return;
    }
    take(&mut rest, 1);
    let across = if area.width >= WIDE { 4 } else { 2 };
    let down = (CLOSING as u16).div_ceil(across);
    let needed = down * (histogram::MOST_ROWS as u16 + 2);
    if rest.height >= needed + LISTS {
        histograms(buf, take(&mut rest, needed), view, look.theme);
        return lists(buf, rest, view, look);
    }
    histograms(buf, rest, view, look.theme);
}

/// Who is behind it, where there is room left: leaks, and who makes TIME_WAITs towards whom.
fn lists(buf: &mut Buffer, area: Rect, view: &View, look: &Look) {
    let mut rest = area;
    let leaks = leak_views::group(&view.leaks.leaks).len().min(usize::from(area.height) / 2) as u16;
    if leaks > 0 {
        leaks::table(buf, take(&mut rest, leaks + 1), view, look);
        take(&mut rest, 1);
    }
    let mut left = Rect { width: rest.width / 2 - 1, ..rest };
    if rest.width < WIDE {
        left.width = rest.width;
        left.height = rest.height / 2;
        let right =
            Rect { y: left.bottom() + 1, height: (rest.height - left.height).saturating_sub(1), ..rest };
        time_wait::makers(buf, left, view, look.theme);
        return time_wait::destinations(buf, right, view, look.theme);
    }
    let right = Rect { x: left.right() + 2, width: rest.width - left.width - 2, ..rest };
    time_wait::makers(buf, left, view, look.theme);
    time_wait::destinations(buf, right, view, look.theme);
}

fn put(buf: &mut Buffer, area: Rect, line: &str, style: Style) {
    if area.height > 0 {
        buf.set_stringn(area.x, area.y, line, usize::from(area.width), style);
    }
}

/// The findings, the worst first, in at most so many lines.
fn finding_lines(view: &View, look: &Look, width: u16, most: usize) -> Vec<(String, Style)> {
    let findings = diagnose(view, |at| look.clock(view, at));
    let room = usize::from(width).saturating_sub(2);
    let mut lines = Vec::new();
    for finding in &findings {
        let (mark, style) = mark(finding, look.theme);
        for (index, line) in
            text::wrap(&look.theme.shown(&finding.text), room, look.theme).into_iter().enumerate()
        {
            let mark = if index == 0 { mark } else { " " };
            lines.push((format!("{mark} {line}"), style));
        }
    }
    if lines.len() > most {
        let hidden = lines.len() - most;
        lines.truncate(most);
        if let Some((line, _)) = lines.last_mut() {
            let more = look.theme.shown(&format!(" … +{hidden}"));
            *line = text::cut(line, usize::from(width).saturating_sub(more.len()), look.theme) + &more;
        }
    }
    lines
}

fn mark(finding: &Finding, theme: Theme) -> (&'static str, Style) {
    match (finding.severity, theme.ascii) {
        (Severity::Alarm, false) => ("✖", theme.alarm()),
        (Severity::Alarm, true) => ("!", theme.alarm()),
        (Severity::Warning, _) => ("!", theme.warning()),
        (Severity::Good, false) => ("✔", theme.good()),
        (Severity::Good, true) => ("*", theme.good()),
    }
}

/// Places of the columns in [`columns`].
const TREND: usize = 2;

fn columns(width: u16) -> ([Column; 9], u64) {
    // What all the other columns take. A column of the trend is worth at least a second.
    let trend = width.saturating_sub(102).clamp(8, 60);
    let (title, over_s) = match trend {
        ..10 => ("LAST MIN", 60),
        10..50 => ("LAST MINUTE", 60),
        _ => ("LAST 5 MINUTES", 300),
    };
    let columns = [
        words("STATE", 21, 0, 0),
        figure("OPEN", 7, 0),
        words(title, trend, trend, 3),
        figure("NEW/s", 5, 2),
        figure("P50", WIDTH, 1),
        figure("P99", WIDTH, 0),
        figure("MAX", WIDTH, 4),
        figure("OLDEST", WIDTH + 2, 5),
        figure("ENDED", 9, 6),
    ];
    (columns, over_s * 1_000_000_000)
}

/// Of columns of durations.
const WIDTH: u16 = 9;

/// A duration in its column: the smaller of two units goes where both do not fit.
fn fitted(text: &str, width: u16) -> String {
    let mut words: Vec<&str> = text.split(' ').collect();
    while text::width(&words.join(" ")) > width.into() && words.len() > 3 {
        words.truncate(words.len() - 2);
    }
    words.join(" ")
}

fn states(buf: &mut Buffer, area: Rect, view: &View, theme: Theme, shown: usize) {
    let (columns, over_ns) = columns(area.width);
    let cells = |row: usize| state_cells(view, theme, row, columns[TREND].width.into(), over_ns);
    table::draw(buf, area, &columns, &Rows { count: shown, cells: &cells, cursor: None, top: 0 }, theme);
}

fn state_cells(view: &View, theme: Theme, row: usize, columns: usize, over_ns: u64) -> Vec<Cell> {
    let lane = LANES[row];
    let report = view.snapshot.of(lane.0, lane.1);
    let open = report.map_or(0, |report| report.open.count);
    let style = theme.state(lane.0);
    let trend = view.trends.columns(columns, over_ns, |sample| sample.open[row]);
    let most = trend.iter().flatten().max().copied().unwrap_or(0);
    let new = view.trends.per_second(RATE_NS, |sample| sample.began[row]);
    let name_style = if open == 0 { theme.faint() } else { style };
    vec![
        cell(lanes::name(lane), name_style),
        cell(human::count(open), if open == 0 { theme.faint() } else { style.patch(theme.heading()) }),
        cell(text::sparkline(&trend, most, theme), style),
        new.map_or_else(
            || cell("-", theme.faint()),
            |rate| figure_cell(text::rate(rate), rate == 0.0, theme),
        ),
        percentile(report, |report| report.survival.p50_ns, theme),
        percentile(report, |report| report.survival.p99_ns, theme),
        known(
            report.and_then(|report| report.finished.max_ns).map(|ns| fitted(&human::duration(ns), WIDTH)),
            theme,
        ),
        known(
            report.and_then(|report| report.open.oldest).map(|age| fitted(&human::age(age), WIDTH + 2)),
            theme,
        ),
        known(report.map(|report| human::count(report.finished.count + report.began_before.count)), theme),
    ]
}

fn figure_cell(text: String, is_nothing: bool, theme: Theme) -> Cell {
    if is_nothing { cell(text, theme.faint()) } else { plain(text) }
}

fn known(text: Option<String>, theme: Theme) -> Cell {
    text.map_or_else(|| cell("-", theme.faint()), plain)
}

fn percentile(report: Option<&StateReport>, ns: fn(&StateReport) -> Option<u64>, theme: Theme) -> Cell {
    let shown = report.map(|report| fitted(&human::percentile(report, ns(report)), WIDTH));
    shown.filter(|shown| shown != "-").map_or_else(|| cell("-", theme.faint()), plain)
}

/// The states without a row, in one line.
fn others(buf: &mut Buffer, area: Rect, view: &View, theme: Theme) {
    let mut x = area.x;
    for lane in &LANES[SHORT..] {
        let open = view.snapshot.of(lane.0, lane.1).map_or(0, |report| report.open.count);
        let name = match lane {
            (TcpState::FinWait2, _) => "passing".to_owned(),
            _ => lanes::name(*lane),
        };
        let style = if open == 0 { theme.faint() } else { theme.state(lane.0) };
        let text = format!("{name} {}  ", human::count(open));
        let room = usize::from((area.x + area.width).saturating_sub(x));
        if text.trim_end().len() > room || area.height == 0 {
            break;
        }
        (x, _) = buf.set_stringn(x, area.y, text, room, style);
    }
}

/// The closing states' histograms, two or four side by side.
fn histograms(buf: &mut Buffer, area: Rect, view: &View, theme: Theme) {
    let across: u16 = if area.width >= WIDE { 4 } else { 2 };
    let down = (CLOSING as u16).div_ceil(across);
    if area.height < 3 {
        return;
    }
    // Three lines show a shape at least; fewer histograms rather than smaller ones.
    let down = down.min((area.height / 4).max(1));
    let (width, height) = (area.width / across, area.height / down);
    for (index, &lane) in by_interest(view).iter().enumerate().take(usize::from(across * down)) {
        let (column, row) = (index as u16 % across, index as u16 / across);
        let place = Rect {
            x: area.x + column * width,
            y: area.y + row * height,
            width: width.saturating_sub(if column + 1 < across { 2 } else { 0 }),
            // The last takes what is left; a line between them where there is room.
            height: if row + 1 < down { height - u16::from(height > 6) } else { area.height - row * height },
        };
        histogram::draw(buf, place, lane, view.snapshot.of(lane.0, lane.1), theme);
    }
}

/// The closing states, those first of which something is known: they must not be the ones that find no room.
fn by_interest(view: &View) -> Vec<Lane> {
    let mut lanes = LANES[..CLOSING].to_vec();
    lanes.sort_by_key(|&(state, phase)| !view.snapshot.of(state, phase).is_some_and(StateReport::has_dwells));
    lanes
}
