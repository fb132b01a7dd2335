//! The help: made from the key map itself.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::tui::keymap;
use crate::tui::look::Look;
use crate::tui::state::State;
use crate::tui::text;

/// Its lines.
#[must_use]
pub fn lines(state: &State, width: u16, look: &Look) -> Vec<Line<'static>> {
    let theme = look.theme;
    let rows: Vec<_> = keymap::bindings(state.view.playback.is_some())
        .filter(|binding| !binding.shown.is_empty())
        .map(|binding| (theme.shown(binding.shown), binding.does))
        .collect();
    let keys = rows.iter().map(|(keys, _)| text::width(keys)).max().unwrap_or(0);
    let mut lines = vec![Line::styled("Keys", theme.heading())];
    for (shown, does) in rows {
        let room = usize::from(width).saturating_sub(keys + 4);
        for (index, does) in text::wrap(&theme.shown(does), room, theme).into_iter().enumerate() {
            let shown = if index == 0 { shown.as_str() } else { "" };
            lines.push(Line::from(vec![
                Span::styled(format!("  {shown:<keys$}"), theme.key()),
                Span::raw(format!("  {does}")),
            ]));
        }
    }
    lines.push(Line::raw(""));
    lines.push(Line::styled("Signs", theme.heading()));
    for sign in [
        "≥   a lower bound: it began before tracing did",
        ">   a percentile that is not reached yet: open sockets count, too",
        "░   open sockets, by the age that they have now; █ those that are over",
        "?   not known",
    ] {
        lines.extend(text::paragraph(sign, width.into(), Style::new(), theme).into_iter().map(|line| {
            let mut line = line;
            line.spans.insert(0, Span::raw("  "));
            line
        }));
    }
    lines
}
