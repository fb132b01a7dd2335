//! Colours and characters of the screen: the terminal's own sixteen colours, which it maps to something readable
//! on its own background, dark or light. Without colour, weight and reverse say the same.

use ratatui::style::{Color, Modifier, Style};

use crate::net::State;
use crate::views::human;

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// With colour.
    pub color: bool,
    /// ASCII only.
    pub ascii: bool,
}

impl Theme {
    fn fg(self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }

    /// What must not be overlooked: loss, leaks.
    #[must_use]
    pub fn alarm(self) -> Style {
        self.fg(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// What deserves a look.
    #[must_use]
    pub fn warning(self) -> Style {
        self.fg(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    /// All is well.
    #[must_use]
    pub fn good(self) -> Style {
        self.fg(Color::Green)
    }

    /// What is there for completeness.
    #[must_use]
    pub fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Headings.
    #[must_use]
    pub fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The row under the cursor, the tab in front.
    #[must_use]
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Keys in hints.
    #[must_use]
    pub fn key(self) -> Style {
        self.fg(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    /// A state, in the colour that the text views give it.
    #[must_use]
    pub fn state(self, state: State) -> Style {
        match state {
            State::Established => self.fg(Color::Green),
            State::SynSent | State::SynRecv | State::NewSynRecv => self.fg(Color::Cyan),
            State::CloseWait => self.fg(Color::Red),
            State::TimeWait => self.fg(Color::Blue),
            State::FinWait1 | State::FinWait2 | State::LastAck | State::Closing => self.fg(Color::Yellow),
            State::Close | State::Listen => self.faint(),
        }
    }

    /// The text as the terminal can show it.
    #[must_use]
    pub fn shown(self, text: &str) -> String {
        if self.ascii { human::ascii(text) } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colour_no_style_has_one() {
        let plain = Theme { color: false, ascii: false };
        let styles =
            [plain.alarm(), plain.warning(), plain.good(), plain.key(), plain.state(State::CloseWait)];
        assert!(styles.iter().all(|style| style.fg.is_none() && style.bg.is_none()));
    }

    #[test]
    fn no_colour_depends_on_the_background() {
        let theme = Theme { color: true, ascii: false };
        for state in State::ALL {
            let style = theme.state(state);
            assert!(!matches!(style.fg, Some(Color::White | Color::Black | Color::Gray | Color::DarkGray)));
            assert_eq!(style.bg, None);
        }
    }
}
