//! A line that is being typed.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Longer than any filter that is meant; a paste of megabytes must not become one.
const MAX_CHARS: usize = 1_000;

/// What the line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Text that rows must contain.
    Search,
    /// A filter in option syntax.
    Filter,
}

/// The line and the cursor in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// What for.
    pub purpose: Purpose,
    text: Vec<char>,
    cursor: usize,
    /// What stood there before, for Esc.
    before: String,
}

/// What came of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed {
    /// Still typing.
    More,
    /// Enter.
    Done,
    /// Esc.
    Cancelled,
}

impl Prompt {
    /// Begins with a text to change.
    #[must_use]
    pub fn new(purpose: Purpose, text: &str) -> Self {
        let text_chars: Vec<char> = text.chars().collect();
        Self { purpose, cursor: text_chars.len(), text: text_chars, before: text.to_owned() }
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> String {
        self.text.iter().collect()
    }

    /// What it began with.
    #[must_use]
    pub fn before(&self) -> &str {
        &self.before
    }

    /// The text before the cursor and from it on.
    #[must_use]
    pub fn parts(&self) -> (String, String) {
        let (left, right) = self.text.split_at(self.cursor);
        (left.iter().collect(), right.iter().collect())
    }

    /// Adds what was pasted: one line, without control characters.
    pub fn paste(&mut self, text: &str) {
        for c in text.chars().take_while(|&c| c != '\n' && c != '\r').filter(|c| !c.is_control()) {
            self.insert(c);
        }
    }

    fn insert(&mut self, c: char) {
        if self.text.len() < MAX_CHARS {
            self.text.insert(self.cursor, c);
            self.cursor += 1;
        }
    }

    /// Takes a key.
    pub fn key(&mut self, event: &KeyEvent) -> Typed {
        let ctrl = event.modifiers.contains(KeyModifiers::CONTROL);
        match (event.code, ctrl) {
            (KeyCode::Enter, _) => return Typed::Done,
            (KeyCode::Esc, _) | (KeyCode::Char('c' | 'g'), true) => return Typed::Cancelled,
            (KeyCode::Backspace, _) | (KeyCode::Char('h'), true) if self.cursor > 0 => {
                self.cursor -= 1;
                self.text.remove(self.cursor);
            }
            (KeyCode::Delete, _) | (KeyCode::Char('d'), true) if self.cursor < self.text.len() => {
                self.text.remove(self.cursor);
            }
            (KeyCode::Left, _) | (KeyCode::Char('b'), true) => self.cursor = self.cursor.saturating_sub(1),
            (KeyCode::Right, _) | (KeyCode::Char('f'), true) => {
                self.cursor = (self.cursor + 1).min(self.text.len());
            }
            (KeyCode::Home, _) | (KeyCode::Char('a'), true) => self.cursor = 0,
            (KeyCode::End, _) | (KeyCode::Char('e'), true) => self.cursor = self.text.len(),
            (KeyCode::Char('u'), true) => {
                self.text.drain(..self.cursor);
                self.cursor = 0;
            }
            (KeyCode::Char('k'), true) => self.text.truncate(self.cursor),
            (KeyCode::Char('w'), true) => self.delete_word(),
            (KeyCode::Char(c), false) if !c.is_control() => self.insert(c),
            _ => {}
        }
        Typed::More
    }

    fn delete_word(&mut self) {
        let end = self.cursor;
        while self.cursor > 0 && self.text[self.cursor - 1] == ' ' {
            self.cursor -= 1;
        }
        while self.cursor > 0 && self.text[self.cursor - 1] != ' ' {
            self.cursor -= 1;
        }
        self.text.drain(self.cursor..end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(prompt: &mut Prompt, keys: &str) {
        for c in keys.chars() {
            let (code, modifiers) = match c {
                '<' => (KeyCode::Backspace, KeyModifiers::NONE),
                '\u{17}' => (KeyCode::Char('w'), KeyModifiers::CONTROL),
                '\u{1}' => (KeyCode::Char('a'), KeyModifiers::CONTROL),
                '\u{15}' => (KeyCode::Char('u'), KeyModifiers::CONTROL),
                c => (KeyCode::Char(c), KeyModifiers::NONE),
            };
            assert_eq!(prompt.key(&KeyEvent::new(code, modifiers)), Typed::More);
        }
    }

    #[test]
    fn a_line_is_typed_as_in_a_shell() {
        let mut prompt = Prompt::new(Purpose::Filter, "--port 80");
        typed(&mut prompt, "<443");
        assert_eq!(prompt.text(), "--port 8443");
        typed(&mut prompt, " -4\u{17}");
        assert_eq!(prompt.text(), "--port 8443 ");
        typed(&mut prompt, "\u{1}é");
        assert_eq!(prompt.parts(), ("é".to_owned(), "--port 8443 ".to_owned()));
        typed(&mut prompt, "\u{15}<<");
        assert_eq!(prompt.text(), "--port 8443 ");
        assert_eq!(prompt.before(), "--port 80");
    }

    #[test]
    fn a_paste_is_one_harmless_line() {
        let mut prompt = Prompt::new(Purpose::Search, "");
        prompt.paste("a\u{1b}[2Jb\ncd");
        assert_eq!(prompt.text(), "a[2Jb");
        prompt.paste(&"x".repeat(5_000));
        assert_eq!(prompt.text().chars().count(), MAX_CHARS);
    }
}
