//! Step functions of a duration: distributions and survival curves, and their picture.

use super::markup::Markup;
use super::scale::Scale;
use super::svg::{self, HEIGHT, WIDTH};
use crate::snapshot::{Finished, StateReport};
use crate::stats::cells::quantile;
use crate::stats::survival::Step;

/// Where the picture's inside lies.
const LEFT: f64 = 46.0;
const RIGHT: f64 = 26.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 42.0;
/// Steps closer together than this, in units of the picture, are one.
const APART: f64 = 0.3;
/// The normal distribution's 97.5th percentile.
const Z95: f64 = 1.959_964;

/// A step function with values in [0, 1].
#[derive(Clone, Debug)]
pub(super) struct Curve {
    /// What it is, for the legend.
    pub(super) label: String,
    /// Names its colour and dashes.
    pub(super) class: String,
    /// The value before the first step.
    start: f64,
    /// From each duration on, the value.
    steps: Vec<(u64, f64)>,
    /// A 95 % band, from each duration on.
    band: Vec<(u64, f64, f64)>,
    /// Ages of open dwells: where they left the estimate.
    marks: Vec<u64>,
    /// Where it ends.
    until_ns: u64,
    /// The 5th and the 95th percentile.
    usual: (u64, u64),
}

impl Curve {
    /// The share of finished dwells that took no longer; `None` where there are none.
    pub(super) fn ecdf(label: String, class: String, finished: &Finished) -> Option<Self> {
        let longest = finished.max_ns?;
        let mut sum = 0;
        let steps = finished.buckets.iter().map(|bucket| {
            sum += bucket.count;
            (bucket.le_ns.min(longest), sum as f64 / finished.count as f64)
        });
        let steps: Vec<_> = steps.collect();
        let usual = |q| quantile(&finished.buckets, q).unwrap_or(longest).min(longest);
        let usual = (usual(0.05), usual(0.95));
        let (band, marks) = (Vec::new(), Vec::new());
        Some(Self { label, class, start: 0.0, steps, band, marks, until_ns: longest, usual })
    }

    /// The share of dwells that last longer, the open ones included; `None` where there are none.
    pub(super) fn survival(label: String, class: String, report: &StateReport) -> Option<Self> {
        let survival = &report.survival;
        let until_ns = survival.observed_ns?;
        let steps: Vec<_> = survival.curve.iter().map(|step| (step.ns, step.longer)).collect();
        let band = survival.curve.iter().map_while(band).collect();
        let marks: Vec<_> = survival.open.iter().map(|bucket| bucket.le_ns.min(until_ns)).collect();
        let youngest = marks.first().copied().unwrap_or(until_ns);
        let usual =
            (survival.quantile(0.05).unwrap_or(youngest), survival.quantile(0.95).unwrap_or(until_ns));
        Some(Self { label, class, start: 1.0, steps, band, marks, until_ns, usual })
    }

    /// Where there is something to see: the first step, or where there is none the youngest open dwell.
    fn first_ns(&self) -> u64 {
        self.steps.first().map(|step| step.0).or(self.marks.first().copied()).unwrap_or(0)
    }

    /// Whether any open dwell is old enough to be marked.
    pub(super) fn has_marks(&self) -> bool {
        self.marks.last().is_some_and(|&oldest| oldest >= self.first_ns())
    }

    fn value_at(&self, ns: u64) -> f64 {
        let steps = self.steps.partition_point(|step| step.0 <= ns);
        steps.checked_sub(1).and_then(|last| self.steps.get(last)).map_or(self.start, |step| step.1)
    }
}

/// A point-wise 95 % interval on the scale of log(-log S), where it stays within [0, 1] and holds for few dwells
/// too (Kalbfleisch J., Prentice R.: The Statistical Analysis of Failure Time Data, 2nd ed., Wiley 2002, 1.4.1).
fn band(step: &Step) -> Option<(u64, f64, f64)> {
    let (longer, error) = (step.longer, step.standard_error?);
    if longer <= 0.0 || longer >= 1.0 {
        return None;
    }
    let spread = (Z95 * error / (longer * longer.ln().abs())).exp();
    Some((step.ns, longer.powf(spread), longer.powf(1.0 / spread)))
}

/// Draws curves over one axis; nothing where there are none. `label` says what the picture shows.
pub(super) fn draw(curves: &[Curve], label: &str, out: &mut Markup) {
    let (Some(min), Some(max)) =
        (curves.iter().map(Curve::first_ns).min(), curves.iter().map(|curve| curve.until_ns).max())
    else {
        return;
    };
    let usual = curves
        .iter()
        .fold((u64::MAX, 0), |(low, high), curve| (low.min(curve.usual.0), high.max(curve.usual.1)));
    let x = Scale::new((min, max), usual, (LEFT, WIDTH - LEFT - RIGHT));
    let y = |share: f64| TOP + (1.0 - share) * (HEIGHT - TOP - BOTTOM);
    svg::picture(HEIGHT, label, out, |out| {
        frame(&x, &y, out);
        for curve in curves {
            if curve.band.len() > 1 {
                let class = format!("band {}", curve.class);
                out.empty("path", &[("class", &class), ("d", &band_path(curve, &x, &y))]);
            }
        }
        for curve in curves {
            let class = format!("line {}", curve.class);
            out.empty("path", &[("class", &class), ("d", &line_path(curve, &x, &y))]);
            let marks = marks_path(curve, &x, &y);
            if !marks.is_empty() {
                let class = format!("mark {}", curve.class);
                out.empty("path", &[("class", &class), ("d", &marks)]);
            }
        }
    });
}

fn frame(x: &Scale, y: &impl Fn(f64) -> f64, out: &mut Markup) {
    let (left, right) = x.ends();
    for (share, label) in [(0.0, "0 %"), (0.25, ""), (0.5, "50 %"), (0.75, ""), (1.0, "100 %")] {
        svg::line("grid", (left, y(share)), (right, y(share)), out);
        if !label.is_empty() {
            svg::text("end", (left - 5.0, y(share) + 4.0), label, out);
        }
    }
    for (ns, label) in &x.ticks {
        svg::line("grid", (x.at(*ns), y(1.0)), (x.at(*ns), y(0.0) + 4.0), out);
        svg::text("middle", (x.at(*ns), y(0.0) + 17.0), label, out);
    }
    let axis = if x.is_log() { "time in the state, in powers of ten" } else { "time in the state" };
    svg::text("middle", (f64::midpoint(left, right), y(0.0) + 34.0), axis, out);
}

/// Points of a step function that are far enough apart to be seen.
fn points(steps: impl Iterator<Item = (u64, f64)>, x: &Scale) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for (ns, value) in steps {
        let at = x.at(ns);
        match points.last_mut() {
            Some(last) if at - last.0 < APART => last.1 = value,
            _ => points.push((at, value)),
        }
    }
    points
}

fn line_path(curve: &Curve, x: &Scale, y: &impl Fn(f64) -> f64) -> String {
    let mut path = svg::Path::at(x.ends().0, y(curve.start));
    for (at, value) in points(curve.steps.iter().copied(), x) {
        path.across(at).down(y(value));
    }
    // A distribution stays where it ended; a survival curve says no more than was observed.
    path.across(if curve.start > 0.0 { x.at(curve.until_ns) } else { x.ends().1 });
    path.finish()
}

fn band_path(curve: &Curve, x: &Scale, y: &impl Fn(f64) -> f64) -> String {
    let upper = points(curve.band.iter().map(|&(ns, _, high)| (ns, high)), x);
    let lower = points(curve.band.iter().map(|&(ns, low, _)| (ns, low)), x);
    // Ends where the curve does, or where it falls to 0 and has no error.
    let last = curve.steps.get(curve.band.len()).map_or(curve.until_ns, |step| step.0);
    let mut path = svg::Path::at(x.at(curve.band[0].0), y(upper[0].1));
    for &(at, value) in &upper {
        path.across(at).down(y(value));
    }
    path.across(x.at(last));
    for &(at, value) in lower.iter().rev() {
        path.down(y(value)).across(at);
    }
    path.close()
}

fn marks_path(curve: &Curve, x: &Scale, y: &impl Fn(f64) -> f64) -> String {
    const HALF: f64 = 3.0;
    let mut path = svg::Path::default();
    let mut last = f64::MIN;
    for &ns in curve.marks.iter().filter(|&&ns| ns >= curve.first_ns()) {
        let at = x.at(ns);
        if at - last < 2.0 * HALF {
            continue;
        }
        last = at;
        let level = y(curve.value_at(ns));
        path.move_to(at, level - HALF).down(level + HALF);
    }
    path.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Bucket;
    use crate::stats::survival::{Longest, Survival};

    #[test]
    fn bands_hold_the_curve_and_stay_within_bounds() {
        let cells: Vec<_> = (1..=20).map(|ns| Bucket { ge_ns: ns, le_ns: ns, count: 1 }).collect();
        let open = [Bucket { ge_ns: 7, le_ns: 7, count: 3 }];
        let survival = Survival::estimate(&cells, &open, Longest::default(), 0);
        let bands: Vec<_> = survival.curve.iter().map_while(band).collect();
        assert_eq!(bands.len(), 19, "none where the curve reaches 0");
        for ((_, low, high), step) in bands.iter().zip(&survival.curve) {
            assert!(0.0 <= *low && *low < step.longer && step.longer < *high && *high <= 1.0);
        }
    }

    #[test]
    fn the_band_of_the_textbook() {
        // 6-MP at 10 weeks: S = 0.7529, standard error 0.0963; log-log interval 0.503 to 0.889 (Klein and
        // Moeschberger, Survival Analysis, 2nd ed., table 4.4).
        let step = Step { ns: 10, longer: 0.7529, standard_error: Some(0.0963), at_risk: 15, ended: 1 };
        let (_, low, high) = band(&step).expect("a band");
        assert!((low - 0.503).abs() < 1e-3 && (high - 0.889).abs() < 1e-3, "{low} {high}");
    }
}
