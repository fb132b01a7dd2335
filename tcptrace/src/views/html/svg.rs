//! The few elements of SVG that the pictures need. Colours are classes, so that the style sheet decides about light,
//! dark and paper.

use std::fmt::Write as _;

use super::markup::Markup;

/// Width of every picture, in units that are about a pixel: drawn for a narrow screen, so that its letters can be
/// read there.
pub(super) const WIDTH: f64 = 420.0;
/// Height of the pictures with curves.
pub(super) const HEIGHT: f64 = 250.0;

/// A picture with what `inside` draws; `label` says what it shows to those who do not see it.
pub(super) fn picture(height: f64, label: &str, out: &mut Markup, inside: impl FnOnce(&mut Markup)) {
    let view = format!("0 0 {WIDTH:.0} {height:.0}");
    out.element("svg", &[("viewBox", &view), ("role", "img"), ("aria-label", label)], inside);
}

/// A straight line.
pub(super) fn line(class: &str, from: (f64, f64), to: (f64, f64), out: &mut Markup) {
    let mut path = Path::at(from.0, from.1);
    path.line_to(to.0, to.1);
    out.empty("path", &[("class", class), ("d", &path.finish())]);
}

/// A text whose `anchor` (`start`, `middle`, `end`) lies at a place.
pub(super) fn text(anchor: &str, (x, y): (f64, f64), text: &str, out: &mut Markup) {
    let (x, y) = (short(x), short(y));
    out.leaf("text", &[("x", &x), ("y", &y), ("text-anchor", anchor)], text);
}

/// A bar with a text that shows under the pointer.
pub(super) fn bar(
    class: &str,
    (x, y): (f64, f64),
    (width, height): (f64, f64),
    title: &str,
    out: &mut Markup,
) {
    let (x, y, width, height) = (short(x), short(y), short(width), short(height));
    let attributes = [("class", class), ("x", &x), ("y", &y), ("width", &width), ("height", &height)];
    out.element("rect", &attributes, |rect| rect.leaf("title", &[], title));
}

/// One decimal is a tenth of a pixel.
fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// The data of a path.
#[derive(Debug, Default)]
pub(super) struct Path {
    data: String,
}

impl Path {
    /// Begins at a place.
    pub(super) fn at(x: f64, y: f64) -> Self {
        let mut path = Self::default();
        path.move_to(x, y);
        path
    }

    /// Goes on elsewhere.
    pub(super) fn move_to(&mut self, x: f64, y: f64) -> &mut Self {
        self.push(format_args!("M{} {}", short(x), short(y)))
    }

    fn line_to(&mut self, x: f64, y: f64) -> &mut Self {
        self.push(format_args!("L{} {}", short(x), short(y)))
    }

    /// To another x.
    pub(super) fn across(&mut self, x: f64) -> &mut Self {
        self.push(format_args!("H{}", short(x)))
    }

    /// To another y.
    pub(super) fn down(&mut self, y: f64) -> &mut Self {
        self.push(format_args!("V{}", short(y)))
    }

    /// The data.
    pub(super) fn finish(self) -> String {
        self.data
    }

    /// The data of a closed path.
    pub(super) fn close(mut self) -> String {
        self.data.push('Z');
        self.data
    }

    fn push(&mut self, step: std::fmt::Arguments<'_>) -> &mut Self {
        // Writing to a String cannot fail.
        let _ = self.data.write_fmt(step);
        self
    }
}
