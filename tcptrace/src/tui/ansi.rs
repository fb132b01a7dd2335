//! Text views on the screen: what they write for a terminal, as styled lines.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

/// The lines of a text whose colours are those of `views::paint`. Any other control sequence was escaped by the
/// view, so that there is none.
#[must_use]
pub fn lines(text: &str) -> Vec<Line<'static>> {
    text.lines().map(line).collect()
}

fn line(text: &str) -> Line<'static> {
    let mut spans = Vec::new();
    let mut style = Style::new();
    let mut pieces = text.split("\u{1b}[");
    spans.extend(pieces.next().filter(|first| !first.is_empty()).map(|first| Span::raw(first.to_owned())));
    for piece in pieces {
        let (codes, rest) = piece.split_once('m').unwrap_or(("", piece));
        for code in codes.split(';') {
            style = apply(style, code);
        }
        if !rest.is_empty() {
            spans.push(Span::styled(rest.to_owned(), style));
        }
    }
    Line::from(spans)
}

/// Select Graphic Rendition: what the views use of it.
fn apply(style: Style, code: &str) -> Style {
    match code {
        "" | "0" => Style::new(),
        "1" => style.add_modifier(Modifier::BOLD),
        "2" => style.add_modifier(Modifier::DIM),
        "31" => style.fg(Color::Red),
        "32" => style.fg(Color::Green),
        "33" => style.fg(Color::Yellow),
        "34" => style.fg(Color::Blue),
        "36" => style.fg(Color::Cyan),
        _ => style,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::State;
    use crate::views::paint::Paint;

    #[test]
    fn colours_of_the_views_come_through() {
        let paint = Paint { color: true };
        let text = format!("a {} b\n{}", paint.state(State::CloseWait, "CLOSE_WAIT"), paint.alarm("!"));
        let lines = lines(&text);
        assert_eq!(lines[0].to_string(), "a CLOSE_WAIT b");
        assert_eq!(lines[0].spans[1].style, Style::new().fg(Color::Red));
        assert_eq!(lines[0].spans[2].style, Style::new());
        assert_eq!(lines[1].spans[0].style, Style::new().fg(Color::Red).add_modifier(Modifier::BOLD));
    }
}
