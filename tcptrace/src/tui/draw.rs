//! The frame around the panes: title, tabs, foot. Draws a state into a buffer and says what it put where.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;

use crate::views::{human, leaks};

use super::keymap;
use super::look::Look;
use super::panes;
use super::progress;
use super::prompt::Purpose;
use super::query::Pane;
use super::state::{Drawn, State};
use super::text;

/// The least that the panes are laid out for.
pub const FULL: (u16, u16) = (80, 24);
/// The least that a reduced view fits in.
pub const REDUCED: (u16, u16) = (40, 8);

/// What came of drawing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// What is where.
    pub drawn: Drawn,
    /// Where the cursor of the terminal blinks, while something is typed.
    pub cursor: Option<Position>,
}

/// Draws everything.
pub fn draw(buf: &mut Buffer, state: &State, look: &Look) -> Frame {
    let area = buf.area;
    let mut frame = Frame::default();
    if area.width < REDUCED.0 || area.height < REDUCED.1 {
        too_small(buf, area, look);
        return frame;
    }
    let line = |y: u16| Rect { y: area.y + y, height: 1, ..area };
    title(buf, line(0), state, look);
    frame.drawn.tabs = tabs(buf, line(1), state, look);
    let mut body = Rect { y: area.y + 2, height: area.height - 3, ..area };
    if let Some(playback) = &state.view.playback {
        body.height -= 1;
        let place = line(area.height - 2);
        frame.drawn.progress = progress::draw(buf, place, playback, state.view.now(), look.theme);
    }
    let reduced = area.width < FULL.0 || area.height < FULL.1;
    panes::draw(buf, body, state, look, reduced, &mut frame.drawn);
    frame.cursor = foot(buf, line(area.height - 1), state, look);
    frame
}

fn too_small(buf: &mut Buffer, area: Rect, look: &Look) {
    let says = format!(
        "This screen of {}×{} is too small: tcptrace needs {}×{}, and shows everything at {}×{}. q quits.",
        area.width, area.height, REDUCED.0, REDUCED.1, FULL.0, FULL.1
    );
    let lines = text::wrap(&look.theme.shown(&says), area.width.into(), look.theme);
    for (y, line) in (area.y..area.bottom()).zip(lines) {
        buf.set_stringn(area.x, y, line, area.width.into(), Style::new());
    }
}

/// A piece of the title; those at the end go first where there is no room.
struct Piece {
    text: String,
    style: Style,
}

fn title(buf: &mut Buffer, area: Rect, state: &State, look: &Look) {
    let theme = look.theme;
    let view = &state.view;
    let meta = &view.snapshot.meta;
    let mut flags = Vec::new();
    let loss = view.snapshot.loss;
    if loss.any() {
        let lost = loss.total();
        flags.push(Piece { text: format!("LOST {}", human::count(lost)), style: theme.alarm() });
    }
    if let Some(recording) = &view.recording {
        let text = format!("● REC {}", human::count(recording.events));
        flags.push(Piece { text, style: theme.alarm() });
    }
    if state.paused {
        flags.push(Piece { text: "PAUSED".to_owned(), style: theme.warning() });
    }
    let width: usize = flags.iter().map(|piece| text::width(&theme.shown(&piece.text)) + 2).sum();
    let mut x = area.x + area.width.saturating_sub(width as u16);
    let room = x.saturating_sub(area.x);
    for piece in flags {
        let left = (area.x + area.width).saturating_sub(x);
        (x, _) = buf.set_stringn(x, area.y, theme.shown(&piece.text), left.into(), piece.style);
        x += 2;
    }
    let mut about = vec![Piece { text: "tcptrace".to_owned(), style: theme.heading() }];
    let mut plain = |text: String| about.push(Piece { text, style: Style::new() });
    plain(look.clock(view, view.now()));
    plain(format!("for {}", text::elapsed(meta.elapsed_ns())));
    if let Some(host) = &meta.host {
        plain(crate::text::escape(host.as_bytes()).into_owned());
    }
    plain(match view.trends.per_second(5_000_000_000, |sample| sample.events) {
        Some(rate) => format!("{} events, {}/s", human::count(meta.events), text::rate(rate)),
        None => human::counted(meta.events, "event"),
    });
    if !loss.any() {
        plain("nothing lost".to_owned());
    }
    plain(human::counted(meta.connections, "connection"));
    if let Some(kernel) = &meta.kernel {
        plain(format!("Linux {}", crate::text::escape(kernel.as_bytes())));
    }
    if !meta.filters.is_empty() {
        plain(format!("only {}", crate::text::escape(meta.filters.as_bytes())));
    }
    let mut x = area.x;
    for (index, piece) in about.into_iter().enumerate() {
        let text = theme.shown(&piece.text);
        let gap = if index == 0 { "" } else { "  " };
        if usize::from(x - area.x) + gap.len() + text::width(&text) > usize::from(room) {
            break;
        }
        x += gap.len() as u16;
        (x, _) = buf.set_stringn(x, area.y, text, usize::from(room - (x - area.x)), piece.style);
    }
}

fn tabs(buf: &mut Buffer, area: Rect, state: &State, look: &Look) -> Vec<(Rect, Pane)> {
    let theme = look.theme;
    let mut placed = Vec::new();
    let leaks = leaks::group(&state.view.leaks.leaks).len();
    let label = |pane: Pane, long: bool| match (pane, long) {
        (Pane::Leaks, _) if leaks > 0 => format!(" {} {} ({leaks}) ", pane.index() + 1, pane.title()),
        (pane, true) => format!(" {} {} ", pane.index() + 1, pane.title()),
        (pane, false) => format!(" {} ", pane.index() + 1),
    };
    let all = |long: bool| Pane::ALL.map(|pane| label(pane, long || pane == state.pane));
    let fits = all(true).iter().map(|label| label.len()).sum::<usize>() <= area.width.into();
    let mut x = area.x;
    for (pane, label) in Pane::ALL.into_iter().zip(all(fits)) {
        let style = if pane == state.pane {
            theme.selected().patch(theme.heading())
        } else if pane == Pane::Leaks && leaks > 0 {
            theme.alarm()
        } else {
            Style::new()
        };
        let left = (area.x + area.width).saturating_sub(x);
        let (end, _) = buf.set_stringn(x, area.y, &label, left.into(), style);
        placed.push((Rect { x, width: end - x, ..area }, pane));
        x = end;
    }
    let left = (area.x + area.width).saturating_sub(x + 1);
    let notes = notes(state, look);
    if text::width(&notes) <= left.into() {
        buf.set_stringn(x + 1, area.y, notes, left.into(), theme.warning());
    }
    placed
}

/// What changes what is seen: a filter, a search. Behind the tabs where there is room, else at the foot.
fn notes(state: &State, look: &Look) -> String {
    let mut notes = Vec::new();
    if !state.list().search.is_empty() {
        notes.push(format!("search {:?}", state.list().search));
    }
    if let Some(focus) = &state.view.focus {
        notes.push(format!("filter {} since {}", focus.line, look.clock(&state.view, focus.since)));
    }
    look.theme.shown(&notes.join("  "))
}

/// The line at the foot: what is typed, what there is to say, or which keys there are.
fn foot(buf: &mut Buffer, area: Rect, state: &State, look: &Look) -> Option<Position> {
    let theme = look.theme;
    let room = usize::from(area.width);
    if let Some(prompt) = &state.prompt {
        let label = match prompt.purpose {
            Purpose::Search => "search: ",
            Purpose::Filter => "filter: ",
        };
        let (x, _) = buf.set_stringn(area.x, area.y, label, room, theme.key());
        let (before, after) = prompt.parts();
        // The end of what stands before the cursor is always seen.
        let left = usize::from((area.x + area.width).saturating_sub(x + 1));
        let skipped = before.chars().count().saturating_sub(left);
        let before: String = before.chars().skip(skipped).collect();
        let (cursor, _) = buf.set_stringn(x, area.y, before, left, Style::new());
        let left = usize::from((area.x + area.width).saturating_sub(cursor));
        buf.set_stringn(cursor, area.y, after, left, Style::new());
        return Some(Position { x: cursor, y: area.y });
    }
    if let Some(message) = &state.message {
        let style = if message.is_error { theme.alarm() } else { theme.heading() };
        let says = text::cut(&theme.shown(&message.text), room, theme);
        buf.set_stringn(area.x, area.y, says, room, style);
        return None;
    }
    let mut x = area.x;
    let notes = notes(state, look);
    let behind_tabs =
        state.drawn.tabs.last().map_or(0, |(tab, _)| room.saturating_sub(usize::from(tab.right()) + 1));
    if text::width(&notes) > behind_tabs {
        let notes = text::cut(&notes, room, theme);
        (x, _) = buf.set_stringn(x, area.y, notes, room, theme.warning());
        x += 2;
    }
    for binding in keymap::bindings(state.view.playback.is_some()).filter(|binding| !binding.hint.is_empty())
    {
        // The first of the keys that the help names.
        let key = binding.shown.split("  ").next().unwrap_or_default();
        let taken = key.len() + binding.hint.len() + 3;
        if usize::from(x.saturating_sub(area.x)) + taken > room {
            break;
        }
        (x, _) = buf.set_stringn(x, area.y, key, room, theme.key());
        (x, _) = buf.set_stringn(x + 1, area.y, binding.hint, room, theme.faint());
        x += 2;
    }
    None
}
