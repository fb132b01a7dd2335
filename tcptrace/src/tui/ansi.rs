//! Text views on the screen: what they write for a terminal, as styled lines.

use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::theme::{Hue, Theme};

/// The lines of a text whose colours are those of `views::paint`. Any other control sequence was escaped by the
/// view, so that there is none.
#[must_use]
pub fn lines(text: &str, theme: Theme) -> Vec<Line<'static>> {
    text.lines().map(|text| line(text, theme)).collect()
}

fn line(text: &str, theme: Theme) -> Line<'static> {
    let mut spans = Vec::new();
    let mut style = Style::new();
    let mut pieces = text.split("\u{1b}[");
    spans.extend(pieces.next().filter(|first| !first.is_empty()).map(|first| Span::raw(first.to_owned())));
    for piece in pieces {
        let (codes, rest) = piece.split_once('m').unwrap_or(("", piece));
        for code in codes.split(';') {
            style = apply(style, code, theme);
        }
        if !rest.is_empty() {
            spans.push(Span::styled(rest.to_owned(), style));
        }
    }
    Line::from(spans)
}

/// Select Graphic Rendition: what the views use of it.
fn apply(style: Style, code: &str, theme: Theme) -> Style {
    match code {
        "" | "0" => Style::new(),
        "1" => style.add_modifier(Modifier::BOLD),
        "2" => style.add_modifier(Modifier::DIM),
        "31" => style.patch(theme.fg(Hue::Red)),
        "32" => style.patch(theme.fg(Hue::Green)),
        "33" => style.patch(theme.fg(Hue::Yellow)),
        "34" => style.patch(theme.fg(Hue::Blue)),
        "36" => style.patch(theme.fg(Hue::Cyan)),
        _ => style,
    }
}

#[cfg(test)]
mod tests {
    use ratatui::style::Color;

    use super::*;
    use crate::net::State;
    use crate::tui::theme::Palette;
    use crate::views::paint::Paint;

    #[test]
    fn colours_of_the_views_come_through() {
        let paint = Paint { color: true };
        let text = format!("a {} b\n{}", paint.state(State::CloseWait, "CLOSE_WAIT"), paint.alarm("!"));
        let lines = lines(&text, Theme { palette: Palette::Sixteen, ascii: false });
        assert_eq!(lines[0].to_string(), "a CLOSE_WAIT b");
        assert_eq!(lines[0].spans[1].style, Style::new().fg(Color::Red));
        assert_eq!(lines[0].spans[2].style, Style::new());
        assert_eq!(lines[1].spans[0].style, Style::new().fg(Color::Red).add_modifier(Modifier::BOLD));
    }
}
