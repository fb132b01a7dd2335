use jiff::tz::TimeZone;
use roxmltree::{Document, Node, ParsingOptions};

use super::*;
use crate::effects::effects;
use crate::event::Comm;
use crate::snapshot::{KeyKind, Meta, Snapshot};
use crate::views::report::samples;

/// Parses a page, and makes sure that it fetches nothing and runs nothing.
fn parsed(page: &str) -> Document<'_> {
    assert!(page.starts_with("<!DOCTYPE html>\n"));
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let document = Document::parse_with_options(page, options).expect("well-formed");
    for node in document.descendants().filter(Node::is_element) {
        let name = node.tag_name().name();
        let is_foreign =
            ["script", "link", "img", "iframe", "object", "embed", "use", "image", "a", "base", "form"];
        assert!(!is_foreign.contains(&name), "<{name}>");
        for attribute in node.attributes() {
            let name = attribute.name();
            assert!(!name.starts_with("on") && !["src", "href", "style"].contains(&name), "{name}");
        }
    }
    for word in ["http:", "https:", "url(", "@import", "file:"] {
        assert!(!page.contains(word), "{word}");
    }
    document
}

fn texts(document: &Document<'_>, element: &str) -> Vec<String> {
    let text = |node: Node<'_, '_>| {
        node.descendants().filter(Node::is_text).filter_map(|text| text.text()).collect::<String>()
    };
    document.descendants().filter(|node| node.has_tag_name(element)).map(text).collect()
}

/// What stands in a page, one line for each element that a reader sees.
fn outline(page: &str) -> String {
    let document = parsed(page);
    let mut lines = String::new();
    for node in document.descendants().filter(Node::is_element) {
        let text = || node.descendants().filter_map(|node| node.text().filter(|_| node.is_text()));
        let line = match node.tag_name().name() {
            name @ ("h1" | "h2" | "p" | "figcaption" | "li") => {
                let class = node.attribute("class").map_or(String::new(), |class| format!(".{class}"));
                format!("{name}{class}: {}", text().collect::<String>().trim())
            }
            "tr" => {
                let cells = node.children().filter(Node::is_element);
                let cells: Vec<_> = cells.map(|cell| cell.text().unwrap_or_default()).collect();
                format!("  {}", cells.join(" | "))
            }
            "path" | "rect" => match node.attribute("class") {
                Some("grid") | None => continue,
                Some(class) => format!("  {}.{class}", node.tag_name().name()),
            },
            _ => continue,
        };
        if !lines.ends_with(&format!("{line}\n")) {
            lines.push_str(&line);
            lines.push('\n');
        }
    }
    lines
}

#[test]
fn a_report_has_everything_that_the_text_has() {
    let snapshot = samples::busy_by(KeyKind::Process);
    insta::assert_snapshot!(outline(&write_report(&snapshot, &TimeZone::UTC)));
}

#[test]
fn a_comparison_tells_both_sides() {
    let (a, b) = (samples::busy_snapshot(None), samples::busy_snapshot(None));
    let found = effects(&a, &b, 1);
    let compared = Compared {
        title: "net.ipv4.tcp_fin_timeout: 60 → 10",
        lead: &["baseline arm 20 s, changed arm 20 s.".to_owned()],
        truths: &["What is known.".to_owned()],
        sides: [Side { label: "before: 60", snapshot: &a }, Side { label: "after: 10", snapshot: &b }],
        traces: &[Side { label: "", snapshot: &a }],
        effects: &found,
    };
    insta::assert_snapshot!(outline(&write_effects(&compared, &TimeZone::UTC)));
}

#[test]
fn what_others_named_is_text_and_nothing_else() {
    let evil = "<script>alert(1)</script>\"'&\u{202e}\x1b[2J";
    let mut snapshot = samples::busy_by(KeyKind::Process);
    snapshot.meta.host = Some(evil.to_owned());
    snapshot.meta.kernel = Some(evil.to_owned());
    snapshot.meta.filters = evil.to_owned();
    snapshot.meta.recording = Some(evil.to_owned());
    snapshot.notes = vec![evil.to_owned()];
    for (process, _) in &mut snapshot.time_wait.owners.top {
        if let Some(process) = process {
            process.comm = Comm::from_bytes(b"<b>\"&'>\x07</b>");
        }
    }
    let page = write_report(&snapshot, &TimeZone::UTC);
    let document = parsed(&page);
    assert!(texts(&document, "h1")[0].contains("<script>alert(1)</script>\"'&\\u{202e}\\x1b[2J"));
    assert!(texts(&document, "th").iter().any(|text| text == "<b>\"&'>\\x07</b>[812]"));
    assert!(!page.chars().any(|c| c.is_control() && c != '\n'));
}

#[test]
fn nothing_seen_is_a_page_too() {
    let snapshot = Snapshot { meta: Meta { now: 10 * samples::S, ..Meta::default() }, ..Snapshot::default() };
    let page = write_report(&snapshot, &TimeZone::UTC);
    assert!(texts(&parsed(&page), "p").iter().any(|text| text.starts_with("Nothing to report")));
}

#[test]
fn pictures_stay_within_their_frame() {
    let page = write_report(&samples::busy_by(KeyKind::Port), &TimeZone::UTC);
    let document = parsed(&page);
    let mut seen = 0;
    for picture in document.descendants().filter(|node| node.attribute("role") == Some("img")) {
        assert!(picture.attribute("aria-label").is_some_and(|label| !label.is_empty()));
        let view: Vec<f64> = picture
            .attribute("viewBox")
            .expect("a size")
            .split(' ')
            .map(|n| n.parse().expect("number"))
            .collect();
        for node in picture.descendants().filter(Node::is_element) {
            let number = |name: &str| node.attribute(name).map(|n| n.parse::<f64>().expect("number"));
            let (x, y) = (number("x").unwrap_or(0.0), number("y").unwrap_or(0.0));
            let (width, height) = (number("width").unwrap_or(0.0), number("height").unwrap_or(0.0));
            assert!(x >= 0.0 && y >= 0.0 && x + width <= view[2] && y + height <= view[3], "{node:?}");
            if let Some(path) = node.attribute("d") {
                let numbers =
                    path.split(|c: char| c.is_ascii_alphabetic() || c == ' ').filter(|n| !n.is_empty());
                for number in numbers {
                    let number: f64 = number.parse().expect("number");
                    assert!((0.0..=view[2]).contains(&number), "{path}");
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 20);
}
