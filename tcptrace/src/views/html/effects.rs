//! `compare` and `experiment` as a page: what changed, in sentences, curves and figures.

use jiff::tz::TimeZone;

use super::curve::Curve;
use super::markup::Markup;
use super::{bars, environment, figure, page, paragraphs, table};
use crate::effects::{StateEffect, interval};
use crate::snapshot::{Snapshot, StateReport};
use crate::stats::compare::Verdict;
use crate::views::human;

/// One of several samples.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// What it is called: a value, a file.
    pub label: &'a str,
    /// Its figures.
    pub snapshot: &'a Snapshot,
}

/// Two samples, and what differs between them.
#[derive(Clone, Copy, Debug)]
pub struct Compared<'a> {
    /// Of the page.
    pub title: &'a str,
    /// What was done, in sentences.
    pub lead: &'a [String],
    /// What is known about it beforehand, and what was seen beside the dwells.
    pub truths: &'a [String],
    /// Before and after.
    pub sides: [Side<'a>; 2],
    /// The traces behind them: one with two arms, or two.
    pub traces: &'a [Side<'a>],
    /// What came out.
    pub effects: &'a [StateEffect],
}

/// The page.
#[must_use]
pub fn write(compared: &Compared<'_>, zone: &TimeZone) -> String {
    let mut order: Vec<&StateEffect> = compared.effects.iter().collect();
    order.sort_by_key(|effect| rank(effect.comparison.verdict));
    page(compared.title, |out| {
        out.element("header", &[], |out| {
            out.leaf("h1", &[], compared.title);
            paragraphs(compared.lead, "origin", out);
            for trace in compared.traces {
                environment::loss(trace.label, trace.snapshot, out);
            }
            for effect in order.iter().filter(|effect| effect.key.is_none()) {
                out.leaf("p", &[("class", class(effect.comparison.verdict))], &effect.sentence());
            }
            paragraphs(compared.truths, "truth", out);
        });
        for effect in order.iter().filter(|effect| effect.key.is_none()) {
            section(compared, effect, out);
        }
        let keyed: Vec<_> = order.iter().filter(|effect| effect.key.is_some()).collect();
        if !keyed.is_empty() {
            out.element("section", &[], |out| {
                out.leaf("h2", &[], "One by one");
                for effect in keyed {
                    out.leaf("p", &[("class", class(effect.comparison.verdict))], &effect.sentence());
                }
            });
        }
        figures(&order, out);
        environment::section(compared.traces, zone, out);
        compared.traces.iter().for_each(|trace| environment::not_measured(trace, out));
    })
}

/// Changes first.
fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Changed => 0,
        Verdict::Unchanged => 1,
        Verdict::NotEnoughData => 2,
    }
}

fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Changed => "changed",
        Verdict::Unchanged => "unchanged",
        Verdict::NotEnoughData => "note",
    }
}

fn section(compared: &Compared<'_>, effect: &StateEffect, out: &mut Markup) {
    let reports = compared.sides.map(|side| side.snapshot.of(effect.state, effect.phase));
    let dwells: u64 = reports.iter().flatten().map(|report| report.finished.count + report.open.count).sum();
    if dwells < 2 {
        return;
    }
    let curves = |of: fn(String, &'static str, &StateReport) -> Option<Curve>| -> Vec<Curve> {
        compared
            .sides
            .iter()
            .zip(reports)
            .zip(["a", "b"])
            .filter_map(|((side, report), class)| of(side.label.to_owned(), class, report?))
            .collect()
    };
    out.element("section", &[], |out| {
        out.leaf("h2", &[], &effect.name());
        out.element("div", &[("class", "charts")], |out| {
            let cdf = curves(|label, class, report| Curve::ecdf(label, class.to_owned(), &report.finished));
            if !cdf.is_empty() {
                figure("Share of the finished dwells that took no longer (ECDF)", &cdf, out);
            }
            let longer = curves(|label, class, report| Curve::survival(label, class.to_owned(), report));
            if !longer.is_empty() {
                figure(
                    "Share still in the state, open ones counted (Kaplan–Meier, 95 % bands)",
                    &longer,
                    out,
                );
            }
            let mut histogram = Markup::default();
            if let [Some(a), Some(b)] = reports
                && bars::of_two(&a.finished, &b.finished, &mut histogram)
            {
                out.element("figure", &[], |out| {
                    out.leaf(
                        "figcaption",
                        &[],
                        "Finished dwells by length, as shares: above before, below after",
                    );
                    out.append(histogram);
                });
            }
        });
    });
}

fn figures(order: &[&StateEffect], out: &mut Markup) {
    let percentile = |ns: Option<u64>| ns.map_or_else(|| "–".to_owned(), human::duration);
    let mut rows = Vec::new();
    for effect in order {
        for (label, side) in [("before", &effect.a), ("after", &effect.b)] {
            let ends: Vec<_> = side
                .ends
                .iter()
                .map(|(name, count)| format!("{} {}", name.replace('_', " "), human::count(count)))
                .collect();
            rows.push(vec![
                if label == "before" { effect.name() } else { String::new() },
                label.to_owned(),
                ends.join(", "),
                human::count(side.survival.events),
                human::count(side.open),
                percentile(side.survival.p50_ns),
                percentile(side.survival.p90_ns),
                percentile(side.survival.p99_ns),
            ]);
        }
        let p = effect.comparison.p_adjusted.map_or_else(|| "p: –".to_owned(), |p| format!("p = {p:.3}"));
        let mut row = vec![String::new(), "change".to_owned(), p, String::new(), String::new()];
        let differences = effect.comparison.differences.iter();
        row.extend(differences.map(|one| one.ci95.map_or_else(|| "–".to_owned(), interval)));
        rows.push(row);
    }
    out.element("section", &[], |out| {
        out.leaf("h2", &[], "Figures");
        table(&["State", "", "Ends", "Ended", "Open", "P50", "P90", "P99"], &rows, 3, out);
        out.leaf("p", &[("class", "note")], crate::views::effects::NOTE);
    });
}
