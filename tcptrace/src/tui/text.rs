//! Laying out text in cells: widths, wrapping, small charts.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::theme::Theme;
use crate::views::page;

/// Columns that a text takes.
#[must_use]
pub fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// The text in at most `room` columns, with `…` where something is left out; a process keeps its id.
#[must_use]
pub fn cut(text: &str, room: usize, theme: Theme) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    if let Some((name, id)) =
        text.rsplit_once('[').filter(|(_, id)| id.ends_with(']') && id.len() + 3 <= room)
    {
        return format!("{}[{id}", cut(name, room - id.len() - 1, theme));
    }
    let mark = if theme.ascii { "~" } else { "…" };
    let mut out = String::new();
    for c in text.chars() {
        if width(&out) + width(c.encode_utf8(&mut [0; 4])) + 1 > room {
            break;
        }
        out.push(c);
    }
    if room > 0 { out + mark } else { out }
}

/// Words on lines of at most `room` columns, a longer word cut. Figures stay with their units.
#[must_use]
pub fn wrap(text: &str, room: usize, theme: Theme) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in page::words(text) {
        let word = cut(&word, room, theme);
        // There is always a last line: the list begins with one.
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(&word);
        } else if width(line) + 1 + width(&word) <= room {
            line.push(' ');
            line.push_str(&word);
        } else {
            lines.push(word);
        }
    }
    lines
}

/// Wrapped, in one style.
#[must_use]
pub fn paragraph(text: &str, room: usize, style: Style, theme: Theme) -> Vec<Line<'static>> {
    wrap(&theme.shown(text), room, theme).into_iter().map(|line| Line::styled(line, style)).collect()
}

/// A figure over time: a column each, `None` where there is none, on a scale from 0 to `most`.
#[must_use]
pub fn sparkline(columns: &[Option<u64>], most: u64, theme: Theme) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const ASCII: [char; 8] = ['_', '.', ',', '-', '=', '+', '*', '#'];
    let bars = if theme.ascii { ASCII } else { BARS };
    columns
        .iter()
        .map(|column| match column {
            None => ' ',
            Some(0) => bars[0],
            // Anything above 0 is seen to be.
            Some(value) => {
                let step = (u128::from(*value) * 7).div_ceil(u128::from(most.max(1)));
                bars[(step as usize).clamp(1, 7)]
            }
        })
        .collect()
}

/// How long it has been, in whole seconds: `31 s`, `5 m 07 s`.
#[must_use]
pub fn elapsed(ns: u64) -> String {
    const S: u64 = 1_000_000_000;
    if ns < 180 * S { format!("{} s", ns / S) } else { crate::views::human::duration(ns) }
}

/// A rate: `0.5`, `20`, `1,204`.
#[must_use]
pub fn rate(per_second: f64) -> String {
    if per_second == 0.0 {
        "0".to_owned()
    } else if per_second < 0.05 {
        "< 0.1".to_owned()
    } else if per_second < 9.95 {
        format!("{per_second:.1}")
    } else {
        // Rates of events fit into 64 bits by far.
        crate::views::human::count(per_second.round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::theme::Palette;

    const THEME: Theme = Theme { palette: Palette::Plain, ascii: false };

    #[test]
    fn texts_are_cut_by_columns() {
        assert_eq!(cut("CLOSE_WAIT", 10, THEME), "CLOSE_WAIT");
        assert_eq!(cut("CLOSE_WAIT", 6, THEME), "CLOSE…");
        assert_eq!(cut("漢字漢字", 5, THEME), "漢字…");
        assert_eq!(cut("漢字漢字", 4, THEME), "漢…");
        assert_eq!(cut("abc", 0, THEME), "");
        assert_eq!(cut("demo-leaky[4711]", 12, THEME), "demo-…[4711]");
        assert_eq!(cut("demo-leaky[4711]", 7, THEME), "demo-l…");
    }

    #[test]
    fn words_are_wrapped_and_long_ones_cut() {
        assert_eq!(wrap("a bc def", 4, THEME), ["a bc", "def"]);
        assert_eq!(wrap("abcdefgh i", 4, THEME), ["abc…", "i"]);
        assert_eq!(wrap("for 14 s, x", 7, THEME), ["for", "14 s, x"]);
        assert_eq!(wrap("", 4, THEME), [""]);
    }

    #[test]
    fn sparklines_show_that_something_is_there() {
        assert_eq!(sparkline(&[None, Some(0), Some(1), Some(100)], 100, THEME), " ▁▂█");
        assert_eq!(sparkline(&[Some(3)], 3, Theme { ascii: true, ..THEME }), "#");
        assert_eq!(sparkline(&[Some(0)], 0, THEME), "▁");
    }

    #[test]
    fn rates_keep_two_digits() {
        assert_eq!(
            [0.0, 0.01, 0.5, 9.96, 20.4, 1204.0].map(rate),
            ["0", "< 0.1", "0.5", "10", "20", "1,204"]
        );
    }
}
