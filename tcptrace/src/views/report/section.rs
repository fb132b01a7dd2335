//! The part of the report about one state.

use crate::net::State;
use crate::outcome::Phase;
use crate::snapshot::{Snapshot, StateReport};
use crate::views::histogram::{Bin, bar, bins};
use crate::views::human;
use crate::views::transitions;

use super::page::Page;
use super::{Options, overview, words};

/// Rows of a histogram, about.
const ROWS: usize = 12;
/// Longer bars say no more.
const MAX_BAR: usize = 50;

pub(super) fn write(snapshot: &Snapshot, report: &StateReport, options: &Options, page: &mut Page) {
    if report.state == State::Listen || !report.has_dwells() {
        return;
    }
    let is_closing = matches!(report.state, State::CloseWait | State::TimeWait | State::FinWait2);
    page.heading(&transitions::state(report.state, report.phase), |paint, text| {
        paint.state(report.state, text)
    });
    page.paragraph(&words::headline(report));
    histogram(report, page);
    if is_closing && report.finished.count > 0 && report.survival.censored > 0 {
        percentiles(report, page);
    }
    let mut sentences = words::ends(report);
    sentences.extend(words::explanation(snapshot, report));
    if !sentences.is_empty() {
        page.blank();
    }
    for sentence in sentences {
        page.paragraph(&sentence);
    }
    keyed(snapshot, report, options, page);
}

/// States that last as long as somebody likes: there the open ones belong into the picture. Where a timer ends
/// the state, open ones are only on their way.
fn shows_open(report: &StateReport) -> bool {
    let has_limit = matches!(
        (report.state, report.phase),
        (State::TimeWait, _) | (State::FinWait2, Some(Phase::Orphaned))
    );
    report.open.count > 0 && (!has_limit || report.finished.count == 0)
}

fn histogram(report: &StateReport, page: &mut Page) {
    let shows_open = shows_open(report);
    let bins = bins(&report.finished, shows_open.then_some(&report.open), ROWS);
    // One row says no more than the headline.
    if bins.len() < 2 {
        return;
    }
    let labels: Vec<_> = labels(&bins).iter().map(|label| page.shown(label)).collect();
    let label_width = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    let counts: Vec<[String; 2]> =
        bins.iter().map(|bin| [human::count(bin.finished), human::count(bin.open)]).collect();
    let width_of = |column: usize, title: &str| {
        counts.iter().map(|counts| counts[column].len()).max().unwrap_or(0).max(title.len())
    };
    let (ended_width, open_width) = (width_of(0, "ended"), width_of(1, "open"));
    let columns = 2 + label_width + 2 + ended_width + if shows_open { 2 + open_width } else { 0 } + 2;
    let bar_width = page.width().saturating_sub(columns).min(MAX_BAR);
    let most = bins.iter().map(|bin| bin.finished + bin.open).max().unwrap_or(0);
    page.blank();
    if shows_open {
        page.line(
            &page
                .paint()
                .faint(&format!("  {:label_width$}  {:>ended_width$}  {:>open_width$}", "", "ended", "open")),
        );
    }
    for ((bin, label), [ended, open]) in bins.iter().zip(&labels).zip(&counts) {
        let mut line = format!("  {label:>label_width$}  {ended:>ended_width$}");
        if shows_open {
            line += &format!("  {open:>open_width$}");
        }
        line += "  ";
        let (solid, hollow) = bars(bin, most, bar_width, page.is_ascii());
        line += &page.paint().state(report.state, &solid);
        line += &page.paint().state(report.state, &hollow);
        page.line(&line);
    }
}

/// The bar of the finished ones, and behind it that of the open ones in another shade.
fn bars(bin: &Bin, most: u64, width: usize, ascii: bool) -> (String, String) {
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
fn labels(bins: &[Bin]) -> Vec<String> {
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

/// The unit to write an edge in: 60 s and 120 s rather than minutes, because TIME_WAIT is spoken of in seconds.
fn unit(edge_ns: u64) -> (u64, &'static str) {
    const S: u64 = 1_000_000_000;
    match edge_ns {
        ..1_000_000 => (1_000, "µs"),
        1_000_000..S => (1_000_000, "ms"),
        _ if edge_ns <= 180 * S => (S, "s"),
        _ if edge_ns <= 180 * 60 * S => (60 * S, "min"),
        _ if edge_ns <= 72 * 3600 * S => (3600 * S, "h"),
        _ => (86_400 * S, "d"),
    }
}

/// Digits after the point that an edge needs, three at most.
fn digits_needed(edge_ns: u64, (unit_ns, _): (u64, &str)) -> usize {
    let mut scale = 1;
    for digits in 0..3 {
        if (edge_ns * scale).is_multiple_of(unit_ns) {
            return digits;
        }
        scale *= 10;
    }
    3
}

fn percentiles(report: &StateReport, page: &mut Page) {
    let finished = &report.finished;
    let survival = &report.survival;
    let known = |ns: Option<u64>| human::duration_or_unknown(ns);
    let reached = |ns| words::percentile(report, ns);
    // Nobody knows how long the longest open one will last; but where no open one is older than the longest
    // finished one, the row would say less than is known.
    let longest = if survival.observed_ns > finished.max_ns { reached(None) } else { known(finished.max_ns) };
    let rows = [
        [
            "  finished".to_owned(),
            known(finished.p50_ns),
            known(finished.p90_ns),
            known(finished.p99_ns),
            known(finished.max_ns),
        ],
        [
            "  with open ones".to_owned(),
            reached(survival.p50_ns),
            reached(survival.p90_ns),
            reached(survival.p99_ns),
            longest,
        ],
    ]
    .map(Vec::from);
    page.blank();
    page.table(&["", "P50", "P90", "P99", "LONGEST"], &rows);
}

fn keyed(snapshot: &Snapshot, report: &StateReport, options: &Options, page: &mut Page) {
    let Some(keying) = snapshot.keyed_by else { return };
    let of_state: Vec<_> = snapshot
        .keyed()
        .filter(|keyed| keyed.state == report.state && keyed.phase == report.phase && keyed.has_dwells())
        .collect();
    let rows: Vec<_> = of_state
        .iter()
        .take(options.keys)
        .filter_map(|keyed| {
            let mut row = vec![human::key(keyed.key.as_ref()?)];
            row.extend(overview::figures(keyed, false));
            Some(row)
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    let left_out = of_state.len().saturating_sub(rows.len());
    page.blank();
    let title = keying.kind.name().to_uppercase();
    let mut header = vec![title.as_str()];
    header.extend(overview::titles(false));
    page.table(&header, &rows);
    if left_out > 0 {
        page.paragraph(&format!("… and {} more.", human::count(left_out as u64)));
    }
}
