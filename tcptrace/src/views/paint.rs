//! Colours of the text views: basic ANSI ones only, which every terminal maps to something readable on its
//! own background.

use anstyle::{AnsiColor, Style};

use crate::net::State;

/// Puts styles around text, or does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paint {
    /// Whether to use colours at all.
    pub color: bool,
}

impl Paint {
    /// The text in a style.
    #[must_use]
    pub fn apply(self, style: Style, text: &str) -> String {
        if self.color && !text.is_empty() { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// Headings.
    #[must_use]
    pub fn heading(self, text: &str) -> String {
        self.apply(Style::new().bold(), text)
    }

    /// What must not be overlooked: loss, leaks.
    #[must_use]
    pub fn alarm(self, text: &str) -> String {
        self.apply(Style::new().bold().fg_color(Some(AnsiColor::Red.into())), text)
    }

    /// What is likely to cause trouble.
    #[must_use]
    pub fn warning(self, text: &str) -> String {
        self.apply(Style::new().bold().fg_color(Some(AnsiColor::Yellow.into())), text)
    }

    /// What is as it should be.
    #[must_use]
    pub fn good(self, text: &str) -> String {
        self.apply(Style::new().bold().fg_color(Some(AnsiColor::Green.into())), text)
    }

    /// What is there for completeness.
    #[must_use]
    pub fn faint(self, text: &str) -> String {
        self.apply(Style::new().dimmed(), text)
    }

    /// A state's name, or anything that stands for it.
    #[must_use]
    pub fn state(self, state: State, text: &str) -> String {
        self.apply(state_style(state), text)
    }
}

/// The colour of a state, the same in every text view: waiting for our own application is red, resting is
/// blue, closing is yellow, open is green.
#[must_use]
pub const fn state_style(state: State) -> Style {
    let color = match state {
        State::Established => AnsiColor::Green,
        State::SynSent | State::SynRecv | State::NewSynRecv => AnsiColor::Cyan,
        State::CloseWait => AnsiColor::Red,
        State::TimeWait => AnsiColor::Blue,
        State::FinWait1 | State::FinWait2 | State::LastAck | State::Closing => AnsiColor::Yellow,
        State::Close | State::Listen => return Style::new().dimmed(),
    };
    Style::new().fg_color(Some(anstyle::Color::Ansi(color)))
}
