//! One file for each pane: functions of the view and the state that draw into a buffer.

pub mod connections;
pub mod events;
mod help;
mod histogram;
pub mod leaks;
pub mod overview;
pub mod time_wait;
mod timeline;
pub mod tuning;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;

use super::list::RowKey;
use super::look::Look;
use super::query::Pane;
use super::state::{Drawn, State};
use super::table::{self, Cell, Column, Rows};
use super::theme::Theme;

/// The orders that a pane's list can have, in words; empty where it has no list, or one order only.
#[must_use]
pub const fn orders(pane: Pane) -> &'static [&'static str] {
    match pane {
        Pane::Leaks => &leaks::ORDERS,
        Pane::TimeWait => &time_wait::ORDERS,
        Pane::Connections => &connections::ORDERS,
        Pane::Overview | Pane::Events | Pane::Tuning => &[],
    }
}

/// The rows of the list in front, in order.
#[must_use]
pub fn keys(state: &State) -> Vec<RowKey> {
    let (view, list) = (&state.view, state.list());
    match state.pane {
        Pane::Overview => Vec::new(),
        Pane::Leaks => leaks::rows(view, list).iter().map(|group| leaks::key(group)).collect(),
        Pane::TimeWait => {
            time_wait::rows(view, list).iter().map(|towards| RowKey::Destination(towards.to)).collect()
        }
        Pane::Connections => {
            connections::rows(view, list).iter().map(|open| RowKey::Connection(open.conn)).collect()
        }
        Pane::Events => events::rows(view, list).iter().map(|seen| RowKey::Event(seen.seq)).collect(),
        Pane::Tuning => tuning::rows(view, list).iter().map(|fact| RowKey::Sysctl(fact.name)).collect(),
    }
}

/// Whose details Enter shows: a connection's for one of its events.
///
/// # Errors
/// A sentence where there are none.
pub fn detail_of(state: &State, key: RowKey) -> Result<RowKey, &'static str> {
    match key {
        RowKey::Event(seq) => events::connection(&state.view, seq)
            .map(RowKey::Connection)
            .ok_or("connect() failed before there was a connection"),
        key => Ok(key),
    }
}

/// Draws the pane in front, or what lies over it. `reduced` where there is less room than panes are laid out
/// for.
pub fn draw(buf: &mut Buffer, area: Rect, state: &State, look: &Look, reduced: bool, drawn: &mut Drawn) {
    if let Some(scroll) = state.help {
        let lines = help::lines(state, area.width, look);
        return page(buf, area, &lines, scroll, look.theme, drawn);
    }
    if let Some(detail) = state.detail {
        let lines = match detail.key {
            RowKey::Leak(..) => leaks::details(&state.view, detail.key, area.width, look),
            RowKey::Connection(conn) => timeline::lines(&state.view, conn, area.width, look),
            RowKey::Destination(to) => time_wait::details(&state.view, &to, area.width, look),
            RowKey::Sysctl(name) => tuning::details(&state.view, name, area.width, look),
            RowKey::Event(_) => Vec::new(),
        };
        return page(buf, area, &lines, detail.scroll, look.theme, drawn);
    }
    match state.pane {
        // Its rows are on their way.
        Pane::Connections | Pane::Events if state.view.pane != state.pane => {}
        Pane::Overview => overview::draw(buf, area, &state.view, look, reduced),
        Pane::Leaks => leaks::draw(buf, area, state, look, drawn),
        Pane::TimeWait => time_wait::draw(buf, area, state, look, drawn),
        Pane::Connections => connections::draw(buf, area, state, look, drawn),
        Pane::Events => events::draw(buf, area, state, look, drawn),
        Pane::Tuning => tuning::draw(buf, area, state, look, drawn),
    }
}

/// A text to be scrolled.
fn page(buf: &mut Buffer, area: Rect, lines: &[Line<'_>], scroll: usize, theme: Theme, drawn: &mut Drawn) {
    let height = usize::from(area.height);
    let scroll = scroll.min(lines.len().saturating_sub(height));
    for (y, line) in (area.y..area.bottom()).zip(&lines[scroll..]) {
        buf.set_line(area.x, y, line, area.width);
    }
    let below = lines.len().saturating_sub(scroll + height);
    if below > 0 && area.height > 0 {
        let more = theme.shown(&format!(" ↓ {below} more "));
        let width = super::text::width(&more).min(area.width.into()) as u16;
        let style = theme.selected();
        buf.set_stringn(area.right() - width, area.bottom() - 1, more, width.into(), style);
    }
    drawn.page = (lines.len(), height);
}

/// The pane's list: columns, and a row for each key.
fn list(
    buf: &mut Buffer,
    area: Rect,
    state: &State,
    theme: Theme,
    (columns, keys): (&[Column], &[RowKey]),
    cells: &dyn Fn(usize) -> Vec<Cell>,
    drawn: &mut Drawn,
) {
    let rows = Rows { count: keys.len(), cells, cursor: state.list().position(keys), top: state.drawn.top };
    let placed = table::draw(buf, area, columns, &rows, theme);
    drawn.rows = placed.rows;
    drawn.top = placed.top;
}

/// Least lines of details that are worth a place under a list.
const DETAILS: u16 = 8;

/// Places for a list of so many rows, and for details of the chosen one under it, where there is room for both:
/// a list takes two thirds at most.
fn with_details(rest: Rect, rows: usize) -> (Rect, Option<Rect>) {
    let needed = u16::try_from(rows + 1).unwrap_or(u16::MAX);
    let height = needed.min(rest.height / 3 * 2);
    let left = rest.height - height;
    if left <= DETAILS {
        return (rest, None);
    }
    let below = Rect { y: rest.y + height + 1, height: left - 1, ..rest };
    (Rect { height, ..rest }, Some(below))
}

/// Lines, as far as there is room for them; the last says that there are more.
fn lines(buf: &mut Buffer, area: Rect, lines: &[Line<'_>], theme: Theme) {
    let room = usize::from(area.height);
    let last = lines.iter().rposition(|line| line.width() > 0).map_or(0, |last| last + 1);
    let lines = &lines[..last];
    for (y, line) in (area.y..area.bottom()).zip(lines) {
        buf.set_line(area.x, y, line, area.width);
    }
    if lines.len() > room && area.height > 0 {
        let blank = " ".repeat(area.width.into());
        buf.set_stringn(area.x, area.bottom() - 1, blank, area.width.into(), Style::new());
        let more = theme.shown(&format!("  … {} more: Enter", lines.len() - room + 1));
        buf.set_stringn(area.x, area.bottom() - 1, more, area.width.into(), theme.faint());
    }
}

/// The first rows of what is left.
fn take(rest: &mut Rect, rows: u16) -> Rect {
    let rows = rows.min(rest.height);
    let taken = Rect { height: rows, ..*rest };
    rest.y += rows;
    rest.height -= rows;
    taken
}

/// Sentences at the top of what is left, in at most `most` lines.
fn say(buf: &mut Buffer, rest: &mut Rect, text: &str, style: Style, theme: Theme, most: usize) {
    let room = usize::from(rest.width);
    let lines = super::text::wrap(&theme.shown(text), room, theme);
    for (index, line) in lines.iter().take(most).enumerate() {
        let is_cut = index + 1 == most && lines.len() > most;
        let line = if is_cut { super::text::cut(&format!("{line} …"), room, theme) } else { line.clone() };
        let place = take(rest, 1);
        if place.height > 0 {
            buf.set_stringn(place.x, place.y, theme.shown(&line), room, style);
        }
    }
}
