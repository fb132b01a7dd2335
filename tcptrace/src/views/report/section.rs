//! The part of the report about one state.

use crate::net::State;
use crate::snapshot::{Snapshot, StateReport};
use crate::views::histogram::{bars, bins, labels};
use crate::views::human;
use crate::views::transitions;

use super::{Options, overview, words};
use crate::views::page::Page;

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

fn histogram(report: &StateReport, page: &mut Page) {
    let shows_open = report.shows_open();
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

fn percentiles(report: &StateReport, page: &mut Page) {
    let finished = &report.finished;
    let survival = &report.survival;
    let known = |ns: Option<u64>| human::duration_or_unknown(ns);
    let reached = |ns| human::percentile(report, ns);
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
    let Some(title) = snapshot.keyed_title() else { return };
    let of_state: Vec<_> = snapshot
        .keyed()
        .filter(|keyed| keyed.state == report.state && keyed.phase == report.phase && keyed.has_dwells())
        .collect();
    let rows: Vec<_> = of_state
        .iter()
        .take(options.keys)
        .map(|keyed| {
            let mut row = vec![human::whose(keyed)];
            row.extend(overview::figures(keyed, false));
            row
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    let left_out = of_state.len().saturating_sub(rows.len());
    page.blank();
    let title = title.to_uppercase();
    let mut header = vec![title.as_str()];
    header.extend(overview::titles(false));
    page.table(&header, &rows);
    if left_out > 0 {
        page.paragraph(&format!("… and {} more.", human::count(left_out as u64)));
    }
}
