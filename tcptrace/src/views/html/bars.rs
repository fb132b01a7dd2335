//! Histograms: the rows of the text report, drawn.

use super::markup::Markup;
use super::svg::{self, WIDTH};
use crate::snapshot::{Age, Finished, OpenDwells, StateReport};
use crate::views::histogram::{Bin, bins, labels};
use crate::views::human;

/// Rows, about.
const ROWS: usize = 12;
/// Places for the labels and for the counts.
const LABELS: f64 = 92.0;
const COUNTS: f64 = 64.0;
/// Place for two shares.
const SHARES: f64 = 92.0;
const ROW: f64 = 17.0;
const BAR: f64 = 12.0;
const TOP: f64 = 4.0;

/// The dwells of a state, the open ones behind them where they belong into the picture. False where there is too
/// little for one.
pub(super) fn of_report(report: &StateReport, class: &str, out: &mut Markup) -> bool {
    let open = report.shows_open().then_some(&report.open);
    let bins = bins(&report.finished, open, ROWS);
    if bins.len() < 2 {
        return false;
    }
    let most = bins.iter().map(|bin| bin.finished + bin.open).max().unwrap_or(0);
    let width = |count: u64| (WIDTH - LABELS - COUNTS) * count as f64 / most.max(1) as f64;
    rows(&bins, "histogram of the time in the state", out, |bin, label, y, out| {
        let (solid, hollow) = (width(bin.finished), width(bin.open));
        let y = y + (ROW - BAR) / 2.0;
        if bin.finished > 0 {
            let title = format!("{label}: {} ended", human::count(bin.finished));
            svg::bar(&format!("bar {class}"), (LABELS, y), (solid.max(1.0), BAR), &title, out);
        }
        if bin.open > 0 {
            let title = format!("{label}: {} open", human::count(bin.open));
            svg::bar(&format!("open {class}"), (LABELS + solid, y), (hollow.max(1.0), BAR), &title, out);
        }
        let counts = match (bin.finished, bin.open) {
            (0, 0) => return,
            (ended, 0) => human::count(ended),
            (0, open) => format!("+{}", human::count(open)),
            (ended, open) => format!("{} +{}", human::count(ended), human::count(open)),
        };
        svg::text("start", (LABELS + solid + hollow + 4.0, y + BAR - 2.0), &counts, out);
    });
    true
}

/// The finished dwells of two samples side by side, as shares of each. False where there is too little for a picture.
pub(super) fn of_two(a: &Finished, b: &Finished, out: &mut Markup) -> bool {
    // The second sample takes the place of the open ones, so that both have the same rows.
    let second = OpenDwells {
        oldest: b.max_ns.map(|ns| Age { ns, is_lower_bound: false }),
        ages: b.buckets.clone(),
        ..OpenDwells::default()
    };
    let bins = bins(a, Some(&second), ROWS);
    if bins.len() < 2 {
        return false;
    }
    let share = |count: u64, total: u64| count as f64 / total.max(1) as f64;
    let most = bins
        .iter()
        .map(|bin| share(bin.finished, a.count).max(share(bin.open, b.count)))
        .fold(f64::MIN_POSITIVE, f64::max);
    rows(&bins, "histogram of the time in the state, before and after", out, |bin, label, y, out| {
        const THIN: f64 = 6.5;
        let sides = [("a", "before", bin.finished, a.count), ("b", "after", bin.open, b.count)];
        for (index, (class, name, count, total)) in sides.into_iter().enumerate() {
            if count == 0 {
                continue;
            }
            let y = y + 1.5 + index as f64 * (THIN + 0.5);
            let width = ((WIDTH - LABELS - SHARES) * share(count, total) / most).max(1.0);
            let percent = human::percent(count, total);
            let title = format!("{label}, {name}: {} ({percent})", human::count(count));
            svg::bar(&format!("bar {class}"), (LABELS, y), (width, THIN), &title, out);
        }
        let shares: Vec<_> = sides.iter().map(|&(_, _, count, total)| human::percent(count, total)).collect();
        if bin.finished + bin.open > 0 {
            let widest = share(bin.finished, a.count).max(share(bin.open, b.count)) / most;
            let x = LABELS + (WIDTH - LABELS - SHARES) * widest + 4.0;
            svg::text("start", (x, y + 12.0), &shares.join(", "), out);
        }
    });
    true
}

fn rows(bins: &[Bin], label: &str, out: &mut Markup, mut draw: impl FnMut(&Bin, &str, f64, &mut Markup)) {
    let height = TOP * 2.0 + ROW * bins.len() as f64;
    svg::picture(height, label, out, |out| {
        svg::line("grid", (LABELS, TOP), (LABELS, height - TOP), out);
        for (index, (bin, label)) in bins.iter().zip(labels(bins)).enumerate() {
            let y = TOP + ROW * index as f64;
            svg::text("end", (LABELS - 6.0, y + 12.5), &label, out);
            draw(bin, &label, y, out);
        }
    });
}
