//! Markup that is well-formed and escaped by construction: nobody outside of this file writes an angle bracket.
//!
//! Every element is closed and every attribute quoted, so that an XML parser reads the page as well as a browser does.

use std::fmt::Write as _;

/// Attributes of an element: names and values.
pub(super) type Attributes<'a> = &'a [(&'static str, &'a str)];

/// A document being written.
#[derive(Debug, Default)]
pub(super) struct Markup {
    out: String,
}

impl Markup {
    /// An element with whatever `inside` writes.
    pub(super) fn element(
        &mut self,
        name: &'static str,
        attributes: Attributes<'_>,
        inside: impl FnOnce(&mut Self),
    ) {
        self.begin(name, attributes);
        self.out.push('>');
        inside(self);
        self.out.push_str("</");
        self.out.push_str(name);
        self.out.push('>');
        if is_block(name) {
            self.out.push('\n');
        }
    }

    /// An element without contents.
    pub(super) fn empty(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.begin(name, attributes);
        self.out.push_str("/>");
    }

    /// An element with nothing but text.
    pub(super) fn leaf(&mut self, name: &'static str, attributes: Attributes<'_>, text: &str) {
        self.element(name, attributes, |inside| inside.text(text));
    }

    /// Text, escaped.
    pub(super) fn text(&mut self, text: &str) {
        escape_into(&mut self.out, text);
    }

    /// Everything that another document holds.
    pub(super) fn append(&mut self, other: Self) {
        self.out.push_str(&other.out);
    }

    /// The style sheet: ours, and free of angle brackets.
    pub(super) fn style(&mut self, sheet: &'static str) {
        debug_assert!(!sheet.contains(['<', '&']), "it would need escaping");
        self.begin("style", &[]);
        self.out.push_str(">\n");
        self.out.push_str(sheet);
        self.out.push_str("</style>\n");
    }

    /// The whole of it behind a document type.
    pub(super) fn into_page(self) -> String {
        format!("<!DOCTYPE html>\n{}", self.out)
    }

    fn begin(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.out.push('<');
        self.out.push_str(name);
        for (name, value) in attributes {
            // Writing to a String cannot fail.
            let _ = write!(self.out, " {name}=\"");
            escape_into(&mut self.out, value);
            self.out.push('"');
        }
    }

    #[cfg(test)]
    pub(super) fn into_string(self) -> String {
        self.out
    }
}

fn is_block(name: &str) -> bool {
    matches!(
        name,
        "html"
            | "head"
            | "body"
            | "main"
            | "header"
            | "footer"
            | "section"
            | "h1"
            | "h2"
            | "h3"
            | "p"
            | "table"
            | "tr"
            | "ul"
            | "li"
            | "figure"
            | "svg"
            | "title"
    )
}

fn escape_into(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // No XML document may hold these, escaped or not; `text::escape` has replaced them before.
            '\u{0}'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                out.push('\u{fffd}');
            }
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn other_peoples_text_stays_text() {
        let mut markup = Markup::default();
        markup.element("p", &[("title", "\"><script>")], |p| p.text("<script>alert('&')</script>"));
        let expected =
            "<p title=\"&quot;&gt;&lt;script&gt;\">&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;</p>\n";
        assert_eq!(markup.into_string(), expected);
    }

    proptest! {
        #[test]
        fn anything_comes_back_from_an_xml_parser(text: String) {
            let mut markup = Markup::default();
            markup.element("p", &[("title", &text)], |p| p.text(&text));
            let page = markup.into_string();
            let document = roxmltree::Document::parse(&page).expect("well-formed");
            let printable = |c: char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
            let seen: String = document.root_element().text().unwrap_or("").chars().filter(|&c| printable(c)).collect();
            let expected: String = text.chars().filter(|&c| printable(c)).collect();
            // What no XML document may hold was replaced.
            prop_assert_eq!(seen.replace('\u{fffd}', ""), expected.replace('\u{fffd}', ""));
        }
    }
}
