//! From a histogram's thousands of cells to the dozen rows that a person can read.

use crate::snapshot::{Bucket, Finished, OpenDwells};

/// One row: durations from `from_ns` up to, not including, `to_ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bin {
    /// Lower edge; `None` for the row of everything shorter than the next one.
    pub from_ns: Option<u64>,
    /// Upper edge; `None` for the row of everything longer than the one before.
    pub to_ns: Option<u64>,
    /// Finished dwells.
    pub finished: u64,
    /// Open ones, by the age that they have now.
    pub open: u64,
}

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;
const S: u64 = 1_000 * MS;
const MIN: u64 = 60 * S;
const HOUR: u64 = 60 * MIN;
const DAY: u64 = 24 * HOUR;

/// Edges that people think in, from fine to coarse.
const FINE: &[u64] = &[
    US,
    2 * US,
    5 * US,
    10 * US,
    20 * US,
    50 * US,
    100 * US,
    200 * US,
    500 * US,
    MS,
    2 * MS,
    5 * MS,
    10 * MS,
    20 * MS,
    50 * MS,
    100 * MS,
    200 * MS,
    500 * MS,
    S,
    2 * S,
    5 * S,
    10 * S,
    20 * S,
    MIN,
    2 * MIN,
    5 * MIN,
    10 * MIN,
    20 * MIN,
    HOUR,
    2 * HOUR,
    5 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    5 * DAY,
    10 * DAY,
    30 * DAY,
    100 * DAY,
];
const MEDIUM: &[u64] = &[
    US,
    3 * US,
    10 * US,
    30 * US,
    100 * US,
    300 * US,
    MS,
    3 * MS,
    10 * MS,
    30 * MS,
    100 * MS,
    300 * MS,
    S,
    3 * S,
    10 * S,
    MIN,
    5 * MIN,
    20 * MIN,
    HOUR,
    5 * HOUR,
    DAY,
    5 * DAY,
    30 * DAY,
];
const COARSE: &[u64] =
    &[US, 10 * US, 100 * US, MS, 10 * MS, 100 * MS, S, 10 * S, MIN, 10 * MIN, HOUR, DAY, 10 * DAY];

/// Coarse edges on either side of the bulk at most.
const OUTER_EDGES: usize = 3;
/// Steps that equal rows aim at for the bulk.
const STEPS: u64 = 10;

/// Rows for finished dwells and, beside them, open ones: equal steps where most lie close together, with what
/// lies far off in a row of its own, else steps that grow with the duration. Between 1 and about `rows` rows.
///
/// A cell that lies across an edge is divided by the part that lies on either side; rows add up exactly. A
/// part of less than a tenth stays with the rest: the cell that holds 60.000 s begins at 59.998 s, and a row
/// that says that timers fired early would be wrong.
#[must_use]
pub fn bins(finished: &Finished, open: Option<&OpenDwells>, rows: usize) -> Vec<Bin> {
    let (finished, open) = (&ended_cells(finished), &open.map(open_cells).unwrap_or_default());
    let mut all: Vec<_> = finished.iter().chain(open).copied().filter(|bucket| bucket.count > 0).collect();
    all.sort_unstable();
    let (Some(first), Some(last)) = (all.first(), all.last()) else { return Vec::new() };
    let (min, max) = (first.ge_ns, last.le_ns);
    let edges = match bulk(&all) {
        Some(bulk) => linear_edges(&all, bulk, rows),
        None => logarithmic_edges(min, max, rows),
    };
    let (finished, open) = (Cumulative(finished), Cumulative(open));
    let mut bins: Vec<_> = std::iter::once(None)
        .chain(edges.iter().copied().map(Some))
        .zip(edges.iter().copied().map(Some).chain([None]))
        .map(|(from_ns, to_ns)| Bin {
            from_ns,
            to_ns,
            finished: finished.between(from_ns, to_ns),
            open: open.between(from_ns, to_ns),
        })
        .collect();
    // The rows at either end are there for what lies far off: only shown when something does.
    let is_empty = |bin: &Bin| bin.finished + bin.open == 0;
    while bins.last().is_some_and(is_empty) {
        bins.pop();
    }
    let leading = bins.iter().take_while(|bin| is_empty(bin)).count();
    bins.drain(..leading);
    bins
}

/// The cells with the outer ones cut to the exact extremes, lest a row show an earlier or a later dwell than
/// there was.
fn ended_cells(finished: &Finished) -> Vec<Bucket> {
    let mut cells = finished.buckets.clone();
    if let (Some(first), Some(min)) = (cells.first_mut(), finished.min_ns) {
        first.ge_ns = min.clamp(first.ge_ns, first.le_ns);
    }
    if let (Some(last), Some(max)) = (cells.last_mut(), finished.max_ns) {
        last.le_ns = max.max(last.ge_ns);
    }
    cells
}

fn open_cells(open: &OpenDwells) -> Vec<Bucket> {
    let mut cells = open.ages.clone();
    if let (Some(last), Some(oldest)) = (cells.last_mut(), open.oldest) {
        last.le_ns = oldest.ns.max(last.ge_ns);
    }
    cells
}

/// Where most dwells lie, if they lie so close together that only equal steps show their shape: nearly all of
/// them within a factor of four, or about half of them within a tenth, as the TIME_WAITs that ran their full
/// time do beside those that were reused.
fn bulk(cells: &[Bucket]) -> Option<(u64, u64)> {
    let share = |q| crate::stats::cells::quantile(cells, q);
    let ranges = [((0.05, 0.95), 4.0), ((0.25, 0.95), 1.1), ((0.05, 0.75), 1.1), ((0.5, 0.95), 1.1)];
    ranges.into_iter().find_map(|((from, to), factor)| {
        let (low, high) = (share(from)?, share(to)?);
        ((high as f64) < low as f64 * factor && high >= 10 * US).then_some((low, high))
    })
}

/// Equal steps over the bulk and what adjoins it without a gap; coarse ones beyond on either side.
fn linear_edges(cells: &[Bucket], (low, high): (u64, u64), rows: usize) -> Vec<u64> {
    let cells = Cumulative(cells);
    let is_occupied = |from: u64, to: u64| cells.between(Some(from), Some(to)) > 0;
    // A step holds several cells, which are a thousandth of the duration wide.
    let mut step = nice_step(((high - low) / STEPS).max(high / 400).max(US));
    let (from, to) = loop {
        let (mut from, mut to) = (low / step, high / step + 1);
        while to - from <= rows as u64 && from > 0 && is_occupied((from - 1) * step, from * step) {
            from -= 1;
        }
        while to - from <= rows as u64 && is_occupied(to * step, (to + 1).saturating_mul(step)) {
            to += 1;
        }
        if to - from <= rows as u64 || step > high {
            break (from, to);
        }
        step = nice_step(step + 1);
    };
    let (start, end) = (from * step, to.saturating_mul(step));
    let below = COARSE.iter().copied().filter(|&edge| edge < start).collect();
    let above = COARSE.iter().copied().filter(|&edge| edge > end).collect();
    let mut below = without_double_gaps(&cells, 0, below, start);
    let mut above = without_double_gaps(&cells, end, above, u64::MAX);
    below.drain(..below.len().saturating_sub(OUTER_EDGES));
    above.truncate(OUTER_EDGES);
    let middle = (from..=to).map(|n| n.saturating_mul(step));
    below.into_iter().chain(middle).chain(above).collect()
}

/// The edges between `first` and `last` without those that part two empty rows.
fn without_double_gaps(cells: &Cumulative<'_>, first: u64, edges: Vec<u64>, last: u64) -> Vec<u64> {
    let all: Vec<_> = [first].into_iter().chain(edges).chain([last]).collect();
    let parts = |row: &[u64]| cells.between(Some(row[0]), Some(row[2])) > 0;
    all.windows(3).filter(|row| parts(row)).map(|row| row[1]).collect()
}

/// The next of 1, 2, 5, 10, 20, ….
pub(super) fn nice_step(at_least: u64) -> u64 {
    let mut magnitude = 1_u64;
    loop {
        for step in [magnitude, 2 * magnitude, 5 * magnitude] {
            if step >= at_least || step > u64::MAX / 20 {
                return step;
            }
        }
        magnitude *= 10;
    }
}

fn logarithmic_edges(min: u64, max: u64, rows: usize) -> Vec<u64> {
    let within = |series: &[u64]| -> Vec<u64> {
        let from = series.partition_point(|&edge| edge <= min).saturating_sub(1);
        let to = (series.partition_point(|&edge| edge <= max) + 1).min(series.len());
        series[from..to].to_vec()
    };
    [FINE, MEDIUM]
        .into_iter()
        .map(within)
        .find(|edges| edges.len() <= rows + 2)
        .unwrap_or_else(|| within(COARSE))
}

/// How many durations lie below an edge.
struct Cumulative<'a>(&'a [Bucket]);

impl Cumulative<'_> {
    fn between(&self, from: Option<u64>, to: Option<u64>) -> u64 {
        let total = || self.0.iter().map(|bucket| bucket.count).sum();
        to.map_or_else(total, |to| self.below(to)) - from.map_or(0, |from| self.below(from))
    }

    /// Rounded for each edge, not for each row, so that rows add up.
    fn below(&self, edge: u64) -> u64 {
        let mut below = 0;
        for bucket in self.0 {
            if bucket.le_ns < edge {
                below += bucket.count;
            } else if bucket.ge_ns < edge {
                let (width, part) = (bucket.le_ns - bucket.ge_ns + 1, edge - bucket.ge_ns);
                let inside = match part {
                    _ if part < width / 10 => 0,
                    _ if width - part < width / 10 => bucket.count.into(),
                    _ => {
                        (u128::from(bucket.count) * u128::from(part) + u128::from(width) / 2)
                            / u128::from(width)
                    }
                };
                // At most `count`, because `part` is at most `width`.
                return below + inside as u64;
            }
        }
        below
    }
}

/// A bar of `width` columns at most; anything above 0 is at least a sliver.
#[must_use]
pub fn bar(value: u64, most: u64, width: usize, ascii: bool) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    if value == 0 || most == 0 {
        return String::new();
    }
    let parts = if ascii { 1 } else { EIGHTHS.len() };
    let filled = (value as f64 / most as f64 * (width * parts) as f64).round().max(1.0) as usize;
    let full = if ascii { "#" } else { "█" };
    full.repeat(filled / parts) + EIGHTHS[filled % parts]
}

/// The bar of a row's finished dwells, and behind it that of its open ones in another shade.
#[must_use]
pub fn bars(bin: &Bin, most: u64, width: usize, ascii: bool) -> (String, String) {
    if bin.open == 0 {
        return (bar(bin.finished, most, width, ascii), String::new());
    }
    // Whole columns where two bars meet: an eighth would leave a gap.
    let columns = |value: u64| (value as f64 / most as f64 * width as f64).round() as usize;
    let solid = if bin.finished == 0 { 0 } else { columns(bin.finished).max(1) };
    let hollow = columns(bin.finished + bin.open).saturating_sub(solid).max(1);
    let (full, shade) = if ascii { ("#", ".") } else { ("█", "░") };
    (full.repeat(solid), shade.repeat(hollow))
}

/// `60.0–60.2 s`, `< 1 µs`, `≥ 62 s`. Rows of equal width have equally many digits.
#[must_use]
pub fn labels(bins: &[Bin]) -> Vec<String> {
    let width = |bin: &Bin| Some(bin.to_ns? - bin.from_ns?);
    let widths: Vec<_> = bins.iter().filter_map(width).collect();
    let times = |width: u64| widths.iter().filter(|&&other| other == width).count();
    let step = widths.iter().copied().find(|&width| times(width) > 2);
    let needed = |edge: u64| digits_needed(edge, unit(edge));
    let steps = bins.iter().filter(|bin| step.is_some() && width(bin) == step);
    let common = steps.flat_map(|bin| [bin.from_ns, bin.to_ns]).flatten().map(needed).max().unwrap_or(0);
    let number = |edge: u64, (unit_ns, name): (u64, &'static str), is_step: bool| {
        let digits = if is_step { common } else { digits_needed(edge, (unit_ns, name)) };
        format!("{:.digits$}", edge as f64 / unit_ns as f64)
    };
    let label = |bin: &Bin| {
        let is_step = step.is_some() && width(bin) == step;
        match (bin.from_ns, bin.to_ns) {
            // 10 s is an awkward part of a minute.
            (Some(from), Some(to)) if unit(from) != unit(to) && digits_needed(from, unit(to)) > 1 => {
                let (from_unit, to_unit) = (unit(from), unit(to));
                format!(
                    "{} {}–{} {}",
                    number(from, from_unit, false),
                    from_unit.1,
                    number(to, to_unit, false),
                    to_unit.1
                )
            }
            (Some(from), Some(to)) => {
                let unit = unit(to);
                format!("{}–{} {}", number(from, unit, is_step), number(to, unit, is_step), unit.1)
            }
            (None, Some(to)) => format!("< {} {}", number(to, unit(to), false), unit(to).1),
            (Some(from), None) => format!("≥ {} {}", number(from, unit(from), false), unit(from).1),
            (None, None) => "all".to_owned(),
        }
    };
    bins.iter().map(label).collect()
}

/// Edges of one axis, `60.0 s`, `60.5 s`: in the unit of the last, with equally many digits.
pub(super) fn edges(edges: &[u64]) -> Vec<String> {
    let (unit_ns, name) = unit(edges.last().copied().unwrap_or(0));
    let digits = edges.iter().map(|&edge| digits_needed(edge, (unit_ns, name))).max().unwrap_or(0);
    edges.iter().map(|&edge| format!("{:.digits$} {name}", edge as f64 / unit_ns as f64)).collect()
}

/// The unit to write an edge in: 60 s and 120 s rather than minutes, because TIME_WAIT is spoken of in seconds.
fn unit(edge_ns: u64) -> (u64, &'static str) {
    match edge_ns {
        ..MS => (US, "µs"),
        MS..S => (MS, "ms"),
        _ if edge_ns <= 180 * S => (S, "s"),
        _ if edge_ns <= 180 * MIN => (MIN, "min"),
        _ if edge_ns <= 72 * HOUR => (HOUR, "h"),
        _ => (DAY, "d"),
    }
}

/// Digits after the point that an edge needs, three at most.
fn digits_needed(edge_ns: u64, (unit_ns, _): (u64, &str)) -> usize {
    let mut scale = 1;
    for digits in 0..3 {
        if (edge_ns % unit_ns * scale).is_multiple_of(unit_ns) {
            return digits;
        }
        scale *= 10;
    }
    3
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::Age;
    use crate::stats::cells::cell_of;

    fn cells(durations: &[u64]) -> Vec<Bucket> {
        let mut cells: Vec<_> = durations.iter().map(|&ns| cell_of(ns, 1)).collect();
        cells.sort_unstable();
        cells
    }

    fn ended(durations: &[u64]) -> Finished {
        let (min_ns, max_ns) = (durations.iter().min().copied(), durations.iter().max().copied());
        Finished { min_ns, max_ns, buckets: cells(durations), ..Finished::default() }
    }

    fn open(ages: &[u64]) -> OpenDwells {
        let oldest = ages.iter().max().map(|&ns| Age { ns, is_lower_bound: false });
        OpenDwells { oldest, ages: cells(ages), ..OpenDwells::default() }
    }

    #[test]
    fn time_waits_are_shown_in_equal_steps_with_the_reused_ones_apart() {
        let mut durations: Vec<_> = (1..1000).map(|n| 60 * S + n * 2 * MS).collect();
        durations.extend([60 * S + 1; 500]);
        durations.extend([S, 2 * S, 3 * S]);
        let bins = bins(&ended(&durations), None, 12);
        assert_eq!((bins[0].from_ns, bins[0].to_ns, bins[0].finished), (Some(S), Some(10 * S), 3));
        assert_eq!((bins[1].to_ns, bins[1].finished), (Some(60 * S), 0), "none was early");
        assert_eq!((bins[2].from_ns, bins[2].to_ns), (Some(60 * S), Some(60_200 * MS)));
        assert_eq!(bins.last().unwrap().to_ns, Some(62 * S), "the longest took 61.998 s");
        assert_eq!(bins.len(), 12);
    }

    #[test]
    fn a_wide_spread_is_shown_in_growing_steps() {
        let bins = bins(&ended(&[500, 3 * US, 4 * MS, 700 * MS, 3 * HOUR]), Some(&open(&[3 * DAY])), 12);
        assert!(bins.len() <= 14);
        assert_eq!((bins[0].from_ns, bins[0].to_ns), (None, Some(US)));
        let last = bins.last().unwrap();
        assert_eq!((last.from_ns, last.open), (Some(DAY), 1));
    }

    #[test]
    fn nothing_has_no_rows_and_one_has_one() {
        assert_eq!(bins(&ended(&[]), None, 12), []);
        assert_eq!(bins(&ended(&[61 * S]), None, 12).len(), 1);
    }

    #[test]
    fn bars() {
        assert_eq!(bar(0, 10, 10, false), "");
        assert_eq!(bar(1, 1_000_000, 10, false), "▏");
        assert_eq!(bar(5, 10, 9, false), "████▌");
        assert_eq!(bar(10, 10, 4, true), "####");
    }

    proptest! {
        #[test]
        fn every_dwell_is_in_one_row(
            finished in prop::collection::vec(0u64..5_000_000_000_000, 0..100),
            ages in prop::collection::vec(any::<u64>(), 0..20),
            narrow: bool,
        ) {
            let finished: Vec<_> = finished.into_iter().map(|ns| if narrow { 60 * S + ns / 2000 } else { ns }).collect();
            let bins = bins(&ended(&finished), Some(&open(&ages)), 12);
            prop_assert!(bins.len() <= 16, "{}", bins.len());
            prop_assert_eq!(bins.iter().map(|bin| bin.finished).sum::<u64>(), finished.len() as u64);
            prop_assert_eq!(bins.iter().map(|bin| bin.open).sum::<u64>(), ages.len() as u64);
            prop_assert!(bins.windows(2).all(|pair| pair[0].to_ns == pair[1].from_ns));
        }
    }
}
