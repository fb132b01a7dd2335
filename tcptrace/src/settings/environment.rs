//! What the surroundings say about the output: terminal, width, colour. Read once, then plain values.

use std::ffi::OsString;
use std::io::IsTerminal as _;

use crate::cli::ColorChoice;

/// Columns where nothing says otherwise.
const DEFAULT_WIDTH: u16 = 80;
/// Fewest columns to draw for; a terminal that is narrower wraps.
const MIN_WIDTH: u16 = 40;

/// The surroundings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Standard output is a terminal.
    pub is_terminal: bool,
    /// Columns to draw for.
    pub width: u16,
    /// What `--color auto` means.
    pub auto_color: bool,
    /// Only ASCII can be shown.
    pub ascii: bool,
    /// TERM names no terminal whose cursor can be moved.
    pub is_dumb: bool,
    /// The terminal says that it knows xterm's 256 colours.
    pub has_256_colors: bool,
}

impl Environment {
    /// Looks at this process's standard output and variables.
    #[must_use]
    pub fn detect() -> Self {
        let stdout = std::io::stdout();
        let is_terminal = stdout.is_terminal();
        let columns = rustix::termios::tcgetwinsize(&stdout).ok().map(|size| size.ws_col);
        Self::from_parts(is_terminal, columns, |name| std::env::var_os(name))
    }

    /// From what was found.
    fn from_parts(is_terminal: bool, columns: Option<u16>, var: impl Fn(&str) -> Option<OsString>) -> Self {
        let text = |name: &str| var(name).and_then(|value| value.into_string().ok());
        // The conventions of no-color.org and bixense.com/clicolors: empty counts as not set.
        let set = |name: &str| var(name).is_some_and(|value| !value.is_empty());
        let auto_color = if set("NO_COLOR") {
            false
        } else if set("CLICOLOR_FORCE") && text("CLICOLOR_FORCE").as_deref() != Some("0") {
            true
        } else {
            is_terminal && text("CLICOLOR").as_deref() != Some("0") && text("TERM").as_deref() != Some("dumb")
        };
        // A terminal that does not know its size says 0.
        let width = columns
            .filter(|&columns| columns != 0)
            .or_else(|| text("COLUMNS").and_then(|columns| columns.parse().ok()))
            .unwrap_or(DEFAULT_WIDTH)
            .max(MIN_WIDTH);
        // As setlocale(3) chooses. Without any of them nothing is known, and nearly every terminal shows UTF-8.
        let locale =
            ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(text).find(|name| !name.is_empty());
        let is_utf8 = |name: &String| name.to_ascii_lowercase().replace('-', "").contains("utf8");
        let ascii = locale.is_some_and(|name| !is_utf8(&name));
        let is_dumb = text("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        let has_256_colors = set("COLORTERM") || text("TERM").is_some_and(|term| term.contains("256color"));
        Self { is_terminal, width, auto_color, ascii, is_dumb, has_256_colors }
    }

    /// Why no full screen can be shown; `None` where one can.
    #[must_use]
    pub fn obstacle_to_screen(&self) -> Option<&'static str> {
        if !self.is_terminal {
            return Some("standard output is not a terminal");
        }
        self.is_dumb.then_some("TERM names no terminal that could show a full screen")
    }

    /// Whether to colour.
    #[must_use]
    pub fn color(&self, choice: ColorChoice) -> bool {
        match choice {
            ColorChoice::Auto => self.auto_color,
            ColorChoice::Always => true,
            ColorChoice::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn colored(is_terminal: bool, vars: &[(&str, &str)]) -> bool {
        let var =
            |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        Environment::from_parts(is_terminal, None, var).auto_color
    }

    #[test]
    fn colour_follows_the_terminal_and_the_conventions() {
        assert!(colored(true, &[]));
        assert!(!colored(false, &[]));
        assert!(!colored(true, &[("NO_COLOR", "1")]));
        assert!(colored(true, &[("NO_COLOR", "")]));
        assert!(!colored(true, &[("CLICOLOR", "0")]));
        assert!(!colored(true, &[("TERM", "dumb")]));
        assert!(colored(false, &[("CLICOLOR_FORCE", "1")]));
        assert!(!colored(false, &[("CLICOLOR_FORCE", "0")]));
        assert!(!colored(true, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    }

    #[test]
    fn width_comes_from_the_terminal_then_columns_then_80() {
        let width = |columns, var: Option<&str>| {
            Environment::from_parts(true, columns, |name| {
                var.filter(|_| name == "COLUMNS").map(OsString::from)
            })
            .width
        };
        assert_eq!(width(Some(132), Some("100")), 132);
        assert_eq!(width(Some(0), Some("100")), 100);
        assert_eq!(width(None, None), 80);
        assert_eq!(width(Some(10), None), 40);
        assert_eq!(width(None, Some("wide")), 80);
    }
}
