//! Lines of a text page: wrapped paragraphs, rules, tables. Knows the width and whether to stay in ASCII.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::human;
use super::paint::Paint;

/// A page being written.
pub(super) struct Page {
    width: usize,
    ascii: bool,
    paint: Paint,
    text: String,
}

/// Nothing is laid out for less.
const MIN_WIDTH: usize = 40;
/// Wider sentences are hard to read.
const MAX_PARAGRAPH: usize = 100;

impl Page {
    pub(super) fn new(width: usize, ascii: bool, paint: Paint) -> Self {
        Self { width: width.max(MIN_WIDTH), ascii, paint, text: String::new() }
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Columns of a paragraph.
    pub(super) fn paragraph_width(&self) -> usize {
        self.width.min(MAX_PARAGRAPH)
    }

    pub(super) fn is_ascii(&self) -> bool {
        self.ascii
    }

    pub(super) fn paint(&self) -> Paint {
        self.paint
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    pub(super) fn blank(&mut self) {
        self.text.push('\n');
    }

    /// The text as this page can show it.
    pub(super) fn shown(&self, text: &str) -> String {
        if self.ascii { human::ascii(text) } else { text.to_owned() }
    }

    /// A line as it stands; already shown, laid out and painted.
    pub(super) fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// A blank line, then a heading and a rule to the end of the line.
    pub(super) fn heading(&mut self, heading: &str, paint: impl Fn(Paint, &str) -> String) {
        let heading = self.shown(heading);
        let rule =
            self.shown("─").repeat(self.width.min(MAX_PARAGRAPH).saturating_sub(heading.chars().count() + 1));
        self.blank();
        self.line(&format!("{} {}", paint(self.paint, &heading), self.paint.faint(&rule)));
    }

    /// Sentences, wrapped.
    pub(super) fn paragraph(&mut self, text: &str) {
        self.wrapped(text, "", |_, line| line.to_owned());
    }

    /// Sentences that must not be overlooked.
    pub(super) fn alarm(&mut self, text: &str) {
        self.wrapped(text, "", Paint::alarm);
    }

    /// Sentences that are a relief.
    pub(super) fn good(&mut self, text: &str) {
        self.wrapped(text, "", Paint::good);
    }

    /// Sentences for those who want to know exactly.
    pub(super) fn note(&mut self, text: &str) {
        self.wrapped(text, "", Paint::faint);
    }

    /// Sentences with a label before the first line; the rest is indented below them.
    pub(super) fn item(&mut self, label: &str, text: &str) {
        let (label, text) = (self.shown(label), self.shown(text));
        let taken = label.chars().count();
        let width = self.width.min(MAX_PARAGRAPH).saturating_sub(taken);
        for (index, line) in wrap(&text, width, "").iter().enumerate() {
            let before = if index == 0 { label.clone() } else { " ".repeat(taken) };
            self.line(&format!("{before}{line}"));
        }
    }

    fn wrapped(&mut self, text: &str, indent: &str, paint: impl Fn(Paint, &str) -> String) {
        let text = self.shown(text);
        for line in wrap(&text, self.width.min(MAX_PARAGRAPH), indent) {
            self.line(&paint(self.paint, &line));
        }
    }

    /// A table without borders; the first column to the left, all others to the right. Cells that are too wide
    /// for the page are wrapped.
    pub(super) fn table(&mut self, header: &[&str], rows: &[Vec<String>]) {
        self.table_with_words(header, rows, &[0]);
    }

    /// The same; the columns of words are to the left, those of figures to the right.
    pub(super) fn table_with_words(&mut self, header: &[&str], rows: &[Vec<String>], words: &[usize]) {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(u16::try_from(self.width).unwrap_or(u16::MAX))
            .set_header(header.iter().map(|cell| self.shown(cell)));
        for row in rows {
            table.add_row(row.iter().map(|cell| self.shown(cell)));
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((if index > 0 { 2 } else { 0 }, 0));
            if !words.contains(&index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        // A title of several lines makes the header as high.
        let header_lines = header.iter().map(|cell| cell.lines().count()).max().unwrap_or(1);
        for (index, line) in table.lines().enumerate() {
            let line = line.trim_end();
            let line = if index < header_lines { self.paint.heading(line) } else { line.to_owned() };
            self.line(&line);
        }
    }
}

/// Words on lines of at most `width`, the second and later ones indented. A word that is longer stands alone; a
/// number stays with its unit.
pub(super) fn wrap(text: &str, width: usize, indent: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in words(text) {
        let is_first_word = line.trim().is_empty();
        if !is_first_word && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::replace(&mut line, indent.to_owned()));
        } else if !is_first_word {
            line.push(' ');
        }
        line.push_str(&word);
    }
    lines.push(line);
    lines
}

/// What may not be torn apart: words, and figures with their units and signs, such as `≥ 2 d 4 h`.
pub(crate) fn words(text: &str) -> Vec<String> {
    const UNITS: [&str; 12] = ["ns", "µs", "us", "ms", "s", "m", "h", "d", "%", "B", "KB", "MB"];
    let is_digit = |c: char| c.is_ascii_digit();
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let unit = word.trim_matches(|c: char| ".,:;()".contains(c));
        match words.last_mut() {
            Some(figure)
                if figure.ends_with(['≥', '>', '<', '='])
                    || figure.ends_with(is_digit) && UNITS.contains(&unit)
                    || figure.starts_with(|c: char| is_digit(c) || "≥><".contains(c))
                        && [" d", " h", " m"].iter().any(|unit| figure.ends_with(unit))
                        && word.chars().all(is_digit) =>
            {
                figure.push(' ');
                figure.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stay_with_their_units() {
        let text = "the oldest for ≥ 2 d 4 h, half within 61.02 s.";
        assert_eq!(words(text), ["the", "oldest", "for", "≥ 2 d 4 h,", "half", "within", "61.02 s."]);
        assert_eq!(wrap(text, 26, "  "), ["the oldest for ≥ 2 d 4 h,", "  half within 61.02 s."]);
    }
}
