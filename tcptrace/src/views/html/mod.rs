//! Reports as a page: one file that needs nothing else, for a browser in light or dark, narrow or wide, and for paper.
//!
//! The pictures are SVG of our own rather than of a plotting crate: theirs carry fixed colours and sizes, and so follow
//! neither the reader's colour scheme nor the width of the screen. No script, no font, no image, nothing to fetch; the
//! page's own policy forbids the browser to.

mod bars;
mod curve;
mod effects;
mod environment;
mod markup;
mod report;
mod scale;
mod svg;

pub use effects::{Compared, Side, write as write_effects};
pub use report::write as write_report;

use markup::Markup;

use crate::net::State;
use crate::outcome::Phase;

/// What a browser is allowed to do with the page, whatever may stand in it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";
const STYLE: &str = include_str!("style.css");

/// A whole page.
fn page(title: &str, body: impl FnOnce(&mut Markup)) -> String {
    let mut out = Markup::default();
    out.element("html", &[("lang", "en")], |html| {
        html.element("head", &[], |head| {
            head.empty("meta", &[("charset", "utf-8")]);
            head.empty("meta", &[("http-equiv", "Content-Security-Policy"), ("content", POLICY)]);
            head.empty("meta", &[("name", "viewport"), ("content", "width=device-width, initial-scale=1")]);
            head.empty(
                "meta",
                &[("name", "generator"), ("content", concat!("tcptrace ", env!("CARGO_PKG_VERSION")))],
            );
            head.leaf("title", &[], title);
            head.style(STYLE);
        });
        html.element("body", &[], |html| html.element("main", &[], body));
    });
    out.into_page()
}

/// Paragraphs.
fn paragraphs(sentences: &[String], class: &str, out: &mut Markup) {
    let attributes = [("class", class)];
    let attributes: &[_] = if class.is_empty() { &[] } else { &attributes };
    for sentence in sentences {
        out.element("p", attributes, |out| prose(sentence, out));
    }
}

/// A sentence in which commands stand between backticks.
fn prose(sentence: &str, out: &mut Markup) {
    for (index, part) in sentence.split('`').enumerate() {
        match index % 2 {
            0 => out.text(part),
            _ => out.leaf("code", &[], part),
        }
    }
}

/// A table: words in the first `words` columns, figures in the others. Scrolls by itself where the page is narrow.
fn table(titles: &[&str], rows: &[Vec<String>], words: usize, out: &mut Markup) {
    let class = |column: usize| if column < words { "word" } else { "figure" };
    out.element("div", &[("class", "wide")], |out| {
        out.element("table", &[], |out| {
            if titles.iter().any(|title| !title.is_empty()) {
                out.element("thead", &[], |out| {
                    out.element("tr", &[], |out| {
                        for (column, title) in titles.iter().enumerate() {
                            out.leaf("th", &[("class", class(column)), ("scope", "col")], title);
                        }
                    });
                });
            }
            out.element("tbody", &[], |out| {
                for row in rows {
                    out.element("tr", &[], |out| {
                        for (column, cell) in row.iter().enumerate() {
                            let name = if column == 0 { "th" } else { "td" };
                            let scope = [("class", class(column)), ("scope", "row")];
                            out.leaf(name, if column == 0 { &scope } else { &scope[..1] }, cell);
                        }
                    });
                }
            });
        });
    });
}

/// A picture with its title, and what its lines are where there are several.
fn figure(caption: &str, curves: &[curve::Curve], out: &mut Markup) {
    let overlay = [("class", "overlay")];
    out.element("figure", if curves.len() > 1 { &overlay } else { &[] }, |out| {
        out.leaf("figcaption", &[], caption);
        curve::draw(curves, caption, out);
        if curves.len() > 1 {
            legend(curves.iter().map(|curve| (curve.class.as_str(), curve.label.as_str())), out);
        }
    });
}

fn legend<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>, out: &mut Markup) {
    out.element("ul", &[("class", "legend")], |out| {
        for (class, label) in entries {
            out.element("li", &[], |out| {
                out.element(
                    "svg",
                    &[("viewBox", "0 0 28 10"), ("class", "key"), ("aria-hidden", "true")],
                    |out| {
                        svg::line(&format!("line {class}"), (1.0, 5.0), (27.0, 5.0), out);
                    },
                );
                out.text(label);
            });
        }
    });
}

/// The class that gives a state its colour, the same in every picture.
fn class_of(state: State, phase: Option<Phase>) -> &'static str {
    match (state, phase) {
        (State::CloseWait, _) => "close-wait",
        (State::TimeWait, _) => "time-wait",
        (State::FinWait2, Some(Phase::Orphaned)) => "orphaned",
        (State::FinWait2, Some(Phase::HalfClosed)) => "half-closed",
        (State::FinWait2, None) => "fin-wait2",
        (State::FinWait1, _) => "fin-wait1",
        (State::LastAck, _) => "last-ack",
        (State::Closing, _) => "closing",
        _ => "other",
    }
}

#[cfg(test)]
mod tests;
