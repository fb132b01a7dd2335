//! Which key does what: one table, from which the help and the hints at the foot are made, too.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::action::{Action, Play};
use super::query::Pane;

/// A key, as the table names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character; capitals with shift.
    Char(char),
    /// With Ctrl.
    Ctrl(char),
    /// Any other.
    Code(KeyCode),
}

impl Key {
    fn is(self, event: &KeyEvent) -> bool {
        let ctrl = event.modifiers.contains(KeyModifiers::CONTROL);
        let alt = event.modifiers.intersects(KeyModifiers::ALT | KeyModifiers::SUPER | KeyModifiers::META);
        match self {
            // Some terminals say shift beside the capital, others do not.
            Self::Char(wanted) => !ctrl && !alt && event.code == KeyCode::Char(wanted),
            Self::Ctrl(wanted) => ctrl && !alt && event.code == KeyCode::Char(wanted),
            Self::Code(wanted) => !ctrl && !alt && event.code == wanted,
        }
    }
}

/// When a binding holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Always.
    Always,
    /// While the running kernel is traced.
    Live,
    /// While a recording is played.
    Playback,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// Any of these.
    pub keys: &'static [Key],
    /// Does this.
    pub action: Action,
    /// When.
    pub scope: Scope,
    /// The keys as the help writes them. Empty where another row of the help speaks for this one.
    pub shown: &'static str,
    /// What it does, in the help.
    pub does: &'static str,
    /// A word for the foot; empty for what need not stand there.
    pub hint: &'static str,
}

const fn always(
    keys: &'static [Key],
    action: Action,
    shown: &'static str,
    does: &'static str,
    hint: &'static str,
) -> Binding {
    Binding { keys, action, scope: Scope::Always, shown, does, hint }
}

/// Spoken for by the row before.
const fn also(keys: &'static [Key], action: Action) -> Binding {
    Binding { keys, action, scope: Scope::Always, shown: "", does: "", hint: "" }
}

const fn playing(keys: &'static [Key], action: Play, shown: &'static str, does: &'static str) -> Binding {
    Binding { keys, action: Action::Play(action), scope: Scope::Playback, shown, does, hint: "" }
}

use Key::{Char, Code, Ctrl};

/// The table.
pub const BINDINGS: &[Binding] = &[
    always(&[Char('q'), Ctrl('c')], Action::Quit, "q  Ctrl-C", "quit", "quit"),
    always(&[Char('?'), Code(KeyCode::F(1))], Action::Help, "?  F1", "this help", "help"),
    always(
        &[Code(KeyCode::Tab), Char('l'), Code(KeyCode::Right)],
        Action::Turn(1),
        "Tab  l  →",
        "next pane",
        "",
    ),
    always(
        &[Code(KeyCode::BackTab), Char('h'), Code(KeyCode::Left)],
        Action::Turn(-1),
        "Shift-Tab  h  ←",
        "pane before",
        "",
    ),
    always(&[Char('1')], Action::Go(Pane::Overview), "1 … 6", "Overview … Tuning", ""),
    also(&[Char('2')], Action::Go(Pane::Leaks)),
    also(&[Char('3')], Action::Go(Pane::TimeWait)),
    also(&[Char('4')], Action::Go(Pane::Connections)),
    also(&[Char('5')], Action::Go(Pane::Events)),
    also(&[Char('6')], Action::Go(Pane::Tuning)),
    always(&[Char('j'), Code(KeyCode::Down)], Action::Move(1), "j  ↓  wheel", "down", ""),
    always(&[Char('k'), Code(KeyCode::Up)], Action::Move(-1), "k  ↑  wheel", "up", ""),
    always(
        &[Code(KeyCode::PageDown), Ctrl('d'), Ctrl('f')],
        Action::Page(1),
        "PgDn  Ctrl-D",
        "a screen down",
        "",
    ),
    always(
        &[Code(KeyCode::PageUp), Ctrl('u'), Ctrl('b')],
        Action::Page(-1),
        "PgUp  Ctrl-U",
        "a screen up",
        "",
    ),
    always(&[Char('g'), Code(KeyCode::Home)], Action::First, "g  Home", "to the first row", ""),
    always(&[Char('G'), Code(KeyCode::End)], Action::Last, "G  End", "to the last row; events follow", ""),
    always(&[Code(KeyCode::Enter)], Action::Open, "Enter  click", "details of the row", "details"),
    always(&[Code(KeyCode::Esc), Code(KeyCode::Backspace)], Action::Back, "Esc", "back; end a search", ""),
    always(&[Char('/')], Action::Search, "/", "search; every word must occur", "search"),
    always(
        &[Char('f')],
        Action::Filter,
        "f",
        "filter, as on the command line: --port 443 --comm 'nginx*'",
        "filter",
    ),
    always(&[Char('s')], Action::Sort, "s", "sort by the next column", "sort"),
    always(&[Char('S')], Action::Reverse, "S", "sort the other way round", ""),
    Binding {
        keys: &[Char('p'), Char(' ')],
        action: Action::Pause,
        scope: Scope::Live,
        shown: "p  Space",
        does: "let the screen stand still; tracing goes on",
        hint: "pause",
    },
    Binding {
        keys: &[Char('p'), Char(' ')],
        action: Action::Play(Play::Toggle),
        scope: Scope::Playback,
        shown: "p  Space",
        does: "stop and go on",
        hint: "pause",
    },
    playing(&[Char('[')], Play::Seek(-10), "[  ]", "10 s back, forward"),
    Binding { shown: "", does: "", ..playing(&[Char(']')], Play::Seek(10), "", "") },
    playing(&[Char('{')], Play::Seek(-60), "{  }", "1 min back, forward"),
    Binding { shown: "", does: "", ..playing(&[Char('}')], Play::Seek(60), "", "") },
    playing(&[Char('0')], Play::Start, "0", "to the beginning"),
    playing(&[Char('-'), Char('<')], Play::Speed(false), "-  +", "slower, faster"),
    Binding { shown: "", does: "", ..playing(&[Char('+'), Char('='), Char('>')], Play::Speed(true), "", "") },
    always(&[Char('e')], Action::Export, "e", "export what is shown as JSON", "export"),
    Binding {
        keys: &[Char('r')],
        action: Action::Record,
        scope: Scope::Live,
        shown: "r",
        does: "begin, end a recording (tcptrace watch --from FILE plays it)",
        hint: "record",
    },
    always(
        &[Char('m')],
        Action::Mouse,
        "m",
        "leave the mouse to the terminal, to copy text; take it back",
        "",
    ),
    always(&[Ctrl('l')], Action::Redraw, "Ctrl-L", "draw everything anew", ""),
    always(&[Ctrl('z')], Action::Suspend, "Ctrl-Z", "stop; fg goes on", ""),
];

/// Those that hold.
pub fn bindings(playback: bool) -> impl Iterator<Item = &'static Binding> {
    BINDINGS.iter().filter(move |binding| match binding.scope {
        Scope::Always => true,
        Scope::Live => !playback,
        Scope::Playback => playback,
    })
}

/// What a key does.
#[must_use]
pub fn action(event: &KeyEvent, playback: bool) -> Option<Action> {
    bindings(playback)
        .find(|binding| binding.keys.iter().any(|key| key.is(event)))
        .map(|binding| binding.action)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(code: KeyCode, modifiers: KeyModifiers) -> Option<Action> {
        action(&KeyEvent::new(code, modifiers), false)
    }

    #[test]
    fn no_key_does_two_things() {
        for playback in [false, true] {
            let keys: Vec<_> = bindings(playback).flat_map(|binding| binding.keys).collect();
            for (index, key) in keys.iter().enumerate() {
                assert!(!keys[..index].contains(key), "{key:?}");
            }
        }
    }

    #[test]
    fn every_binding_is_in_the_help_or_spoken_for() {
        for playback in [false, true] {
            let mut spoken_for = false;
            for binding in bindings(playback) {
                assert!(spoken_for || !binding.shown.is_empty(), "{binding:?}");
                assert_eq!(binding.shown.is_empty(), binding.does.is_empty());
                spoken_for = true;
            }
        }
    }

    #[test]
    fn habits() {
        let none = KeyModifiers::NONE;
        assert_eq!(press(KeyCode::Char('q'), none), Some(Action::Quit));
        assert_eq!(press(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Action::Quit));
        assert_eq!(press(KeyCode::Char('S'), KeyModifiers::SHIFT), Some(Action::Reverse));
        assert_eq!(press(KeyCode::Char('4'), none), Some(Action::Go(Pane::Connections)));
        assert_eq!(press(KeyCode::BackTab, KeyModifiers::SHIFT), Some(Action::Turn(-1)));
        assert_eq!(press(KeyCode::Char('q'), KeyModifiers::ALT), None);
        assert_eq!(press(KeyCode::Char('c'), none), None);
        assert_eq!(press(KeyCode::Char(']'), none), None);
        let seek = action(&KeyEvent::new(KeyCode::Char(']'), none), true);
        assert_eq!(seek, Some(Action::Play(Play::Seek(10))));
        assert_eq!(action(&KeyEvent::new(KeyCode::Char('r'), none), true), None);
    }
}
