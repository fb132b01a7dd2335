//! The picture of `bench growth`: three small plots side by side with one scale, in colours that fit light and dark.

use std::fmt::Write as _;

use super::figures::median;
use super::growth::Axis;

/// Of one plot, in pixels, margins included.
const WIDTH: f64 = 250.0;
const HEIGHT: f64 = 190.0;
/// Around the plot itself: for the numbers left of it, and the words above and below.
const LEFT: f64 = 40.0;
const RIGHT: f64 = 15.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 40.0;

/// The picture.
pub fn draw(axes: &[Axis]) -> String {
    let medians = |axis: &Axis| -> Vec<(f64, f64)> {
        let points = axis.points.iter();
        points.filter_map(|(size, slices)| Some((f64::from(*size).log10(), median(slices)?))).collect()
    };
    let highest = axes.iter().flat_map(medians).map(|(_, ns)| ns).fold(0.0, f64::max);
    // A round number above all.
    let step = 10_f64.powf(highest.max(1.0).log10().floor());
    let top = (highest / step).ceil() * step;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<title>Nanoseconds for an event as the host grows</title>\n\
         <style>text{{fill:#57606a}}path{{fill:none;stroke:#57606a}}.line{{stroke:#0969da;stroke-width:2}}\
         circle{{fill:#0969da}}@media(prefers-color-scheme:dark){{text{{fill:#9ea7b3}}path{{stroke:#9ea7b3}}\
         .line{{stroke:#58a6ff}}circle{{fill:#58a6ff}}}}</style>\n",
        WIDTH * axes.len() as f64
    );
    for (index, axis) in axes.iter().enumerate() {
        plot(&mut svg, WIDTH * index as f64, axis, &medians(axis), top);
    }
    svg.push_str("</svg>\n");
    svg
}

fn plot(svg: &mut String, left: f64, axis: &Axis, points: &[(f64, f64)], top: f64) {
    let (from, to) = points.iter().fold((f64::MAX, f64::MIN), |(from, to), &(x, _)| (from.min(x), to.max(x)));
    let x = |log: f64| left + LEFT + (log - from) / (to - from).max(1e-9) * (WIDTH - LEFT - RIGHT);
    let y = |ns: f64| HEIGHT - BOTTOM - ns / top * (HEIGHT - TOP - BOTTOM);
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = writeln!(svg, "{text}");
    };
    line(format_args!("<path d=\"M{:.0} {TOP}V{:.0}H{:.0}\"/>", x(from), y(0.0), x(to)));
    for ns in [0.0, top] {
        line(format_args!(
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{ns:.0}</text>",
            x(from) - 5.0,
            y(ns) + 4.0
        ));
    }
    line(format_args!("<text x=\"{:.0}\" y=\"{:.0}\">ns an event</text>", x(from) - 5.0, TOP - 12.0));
    let path: Vec<_> = points.iter().map(|&(log, ns)| format!("{:.0} {:.0}", x(log), y(ns))).collect();
    line(format_args!("<path class=\"line\" d=\"M{}\"/>", path.join("L")));
    for (&(log, ns), (size, _)) in points.iter().zip(&axis.points) {
        line(format_args!("<circle cx=\"{:.0}\" cy=\"{:.0}\" r=\"3\"/>", x(log), y(ns)));
        line(format_args!(
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{ns:.0}</text>",
            x(log),
            y(ns) - 7.0
        ));
        line(format_args!(
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{size}</text>",
            x(log),
            HEIGHT - BOTTOM + 14.0
        ));
    }
    line(format_args!(
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
        x(f64::midpoint(from, to)),
        HEIGHT - 8.0,
        axis.what
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::growth;

    #[test]
    fn every_point_is_drawn_within_the_picture() {
        let svg = draw(&growth::example());
        assert_eq!(svg.matches("<circle").count(), 4);
        let number = |tag: &str, name: &str| -> Vec<f64> {
            let of = svg.lines().filter(|line| line.starts_with(tag));
            let value = |line: &str| line.split(name).nth(1)?.split('"').nth(1)?.parse().ok();
            of.filter_map(value).collect()
        };
        assert!(number("<circle", "cx=").iter().all(|&x| (0.0..=2.0 * WIDTH).contains(&x)));
        let heights = number("<circle", "cy=");
        assert!(heights.iter().all(|&y| (0.0..=HEIGHT).contains(&y)), "{heights:?}");
        // Dearer is higher.
        assert!(heights[1] < heights[0]);
    }
}
