//! Colours and characters of the screen, for dark and light backgrounds alike: nobody can be asked which it is
//! without a chance that the answer comes as keys. Where the terminal has 256 colours, six of those that stand
//! out from black and from white; else its own sixteen. Without colour, weight and reverse say the same.

use ratatui::style::{Color, Modifier, Style};

use crate::net::State;
use crate::views::human;

/// The colours that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Palette {
    /// None.
    Plain,
    /// The terminal's own, which only it knows.
    Sixteen,
    /// Those of xterm.
    Xterm,
}

/// What a colour is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hue {
    /// Wrong: leaks, loss.
    Red,
    /// Well.
    Green,
    /// On its way, or worth a look.
    Yellow,
    /// At rest.
    Blue,
    /// To be used: keys; connections that begin.
    Cyan,
}

impl Hue {
    /// Its number among the 256 colours of xterm.
    const fn xterm(self) -> u8 {
        match self {
            Self::Red => 160,
            Self::Green => 28,
            Self::Yellow => 136,
            Self::Blue => 33,
            Self::Cyan => 30,
        }
    }
}

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// With which colours.
    pub palette: Palette,
    /// ASCII only.
    pub ascii: bool,
}

impl Theme {
    /// Text in a colour.
    #[must_use]
    pub fn fg(self, hue: Hue) -> Style {
        let color = match (self.palette, hue) {
            (Palette::Plain, _) => return Style::new(),
            (Palette::Xterm, hue) => Color::Indexed(hue.xterm()),
            (Palette::Sixteen, Hue::Red) => Color::Red,
            (Palette::Sixteen, Hue::Green) => Color::Green,
            (Palette::Sixteen, Hue::Yellow) => Color::Yellow,
            (Palette::Sixteen, Hue::Blue) => Color::Blue,
            (Palette::Sixteen, Hue::Cyan) => Color::Cyan,
        };
        Style::new().fg(color)
    }

    /// Whether there is colour at all.
    #[must_use]
    pub fn has_color(self) -> bool {
        self.palette != Palette::Plain
    }

    /// What must not be overlooked: loss, leaks.
    #[must_use]
    pub fn alarm(self) -> Style {
        self.fg(Hue::Red).add_modifier(Modifier::BOLD)
    }

    /// What deserves a look.
    #[must_use]
    pub fn warning(self) -> Style {
        self.fg(Hue::Yellow).add_modifier(Modifier::BOLD)
    }

    /// All is well.
    #[must_use]
    pub fn good(self) -> Style {
        self.fg(Hue::Green)
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
        self.fg(Hue::Cyan).add_modifier(Modifier::BOLD)
    }

    /// A state, in the colour that the text views give it.
    #[must_use]
    pub fn state(self, state: State) -> Style {
        match state {
            State::Established => self.fg(Hue::Green),
            State::SynSent | State::SynRecv | State::NewSynRecv => self.fg(Hue::Cyan),
            State::CloseWait => self.fg(Hue::Red),
            State::TimeWait => self.fg(Hue::Blue),
            State::FinWait1 | State::FinWait2 | State::LastAck | State::Closing => self.fg(Hue::Yellow),
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

    const HUES: [Hue; 5] = [Hue::Red, Hue::Green, Hue::Yellow, Hue::Blue, Hue::Cyan];

    #[test]
    fn without_colour_no_style_has_one() {
        let plain = Theme { palette: Palette::Plain, ascii: false };
        let styles =
            [plain.alarm(), plain.warning(), plain.good(), plain.key(), plain.state(State::CloseWait)];
        assert!(styles.iter().all(|style| style.fg.is_none() && style.bg.is_none()));
    }

    #[test]
    fn no_colour_depends_on_the_background() {
        for palette in [Palette::Sixteen, Palette::Xterm] {
            let theme = Theme { palette, ascii: false };
            for state in State::ALL {
                let style = theme.state(state);
                assert!(!matches!(
                    style.fg,
                    Some(Color::White | Color::Black | Color::Gray | Color::DarkGray)
                ));
                assert_eq!(style.bg, None);
            }
        }
    }

    /// Relative luminance, as WCAG 2 defines it.
    fn luminance(rgb: [u8; 3]) -> f64 {
        let linear = |channel: u8| {
            let share = f64::from(channel) / 255.0;
            if share <= 0.04045 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(rgb[0]) + 0.7152 * linear(rgb[1]) + 0.0722 * linear(rgb[2])
    }

    fn contrast(a: [u8; 3], b: [u8; 3]) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn every_colour_stands_out_from_dark_and_from_light() {
        // Black, white, and the grounds of widespread schemes: GNOME's dark, Solarized's light.
        let grounds = [[0, 0, 0], [255, 255, 255], [0x1e, 0x1e, 0x1e], [0xfd, 0xf6, 0xe3]];
        for hue in HUES {
            // The cube of xterm's colours: six steps a channel.
            let index = hue.xterm() - 16;
            let step = |n: u8| if n == 0 { 0 } else { 55 + 40 * n };
            let rgb = [step(index / 36), step(index / 6 % 6), step(index % 6)];
            for ground in grounds {
                // What WCAG 2 asks of large text and of graphics.
                assert!(
                    contrast(rgb, ground) >= 3.0,
                    "{hue:?} {rgb:?} on {ground:?}: {}",
                    contrast(rgb, ground)
                );
            }
        }
        assert!((contrast([0, 0, 0], [255, 255, 255]) - 21.0).abs() < 1e-9);
    }
}
