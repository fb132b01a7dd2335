//! What differs between two samples: a table and sentences for people, `effect` lines for machines.

use std::io::{self, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::human;
use super::json::{self, Line};
use super::paint::Paint;
use crate::effects::{StateEffect, interval};
use crate::net::State;
use crate::snapshot::Ends;
use crate::stats::compare::Verdict;

/// The sysctl between the two samples.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its name.
    pub sysctl: String,
    /// In the first sample.
    pub before: String,
    /// In the second.
    pub after: String,
}

/// What the figures mean.
pub(super) const NOTE: &str = "Open sockets count as lasting at least until the end (Kaplan-Meier). p: chance of such a change \
     without a cause, by permutation, for all states together; differences below 2 % and 1 ms count for nothing. change: \
     95 % bootstrap interval.";

/// Writes an `effect` line per state and percentile, and one for the share of each end.
///
/// # Errors
/// What the writer returns.
pub fn write_json(effects: &[StateEffect], change: Option<&Change>, out: &mut impl Write) -> io::Result<()> {
    for effect in effects {
        let changed = match effect.comparison.verdict {
            Verdict::Changed => Some(true),
            Verdict::Unchanged => Some(false),
            Verdict::NotEnoughData => None,
        };
        let line = |metric: &str, a, b, ci95: Option<(i64, i64)>, detail| {
            Line::Effect(json::Effect {
                sysctl: change.map(|change| change.sysctl.clone()),
                before: change.map(|change| change.before.clone()),
                after: change.map(|change| change.after.clone()),
                state: effect.state,
                phase: effect.phase,
                key: effect.key.clone(),
                metric: metric.to_owned(),
                a,
                b,
                difference_ci95_ns: ci95.map(|(low, high)| [low, high]),
                changed,
                p_value: effect.comparison.p_adjusted,
                detail,
            })
        };
        let number = |value: Option<u64>| value.map(|ns| ns as f64);
        for (index, difference) in effect.comparison.differences.iter().enumerate() {
            let detail = (index == 0).then(|| effect.sentence());
            let (a, b) = (number(difference.a), number(difference.b));
            json::write_line(out, &line(difference.metric, a, b, difference.ci95, detail))?;
        }
        for (name, a, b) in ends(&effect.a.ends, &effect.b.ends) {
            let metric = format!("ends_{name}");
            json::write_line(out, &line(&metric, Some(a as f64), Some(b as f64), None, None))?;
        }
        let distance = Some(effect.comparison.distance.share);
        json::write_line(out, &line("curve_distance", None, distance, None, None))?;
    }
    Ok(())
}

/// Writes how often connect() found no free local port, as an `effect` line of SYN_SENT.
///
/// # Errors
/// What the writer returns.
pub fn write_connect_failures_json(
    [a, b]: [u64; 2],
    change: Option<&Change>,
    out: &mut impl Write,
) -> io::Result<()> {
    let line = Line::Effect(json::Effect {
        sysctl: change.map(|change| change.sysctl.clone()),
        before: change.map(|change| change.before.clone()),
        after: change.map(|change| change.after.clone()),
        state: State::SynSent,
        phase: None,
        key: None,
        metric: "connect_failures".to_owned(),
        a: Some(a as f64),
        b: Some(b as f64),
        difference_ci95_ns: None,
        changed: None,
        p_value: None,
        detail: None,
    });
    json::write_line(out, &line)
}

/// Every reason that occurs on either side.
fn ends(a: &Ends, b: &Ends) -> Vec<(&'static str, u64, u64)> {
    let count = |ends: &Ends, name: &str| ends.iter().find(|(other, _)| *other == name).map_or(0, |(_, n)| n);
    Ends::NAMES
        .into_iter()
        .map(|name| (name, count(a, name), count(b, name)))
        .filter(|&(_, a, b)| a + b > 0)
        .collect()
}

/// Writes a table of the figures, the ends, and a sentence per state: changes first.
///
/// # Errors
/// What the writer returns.
pub fn write_text(effects: &[StateEffect], paint: Paint, width: u16, out: &mut impl Write) -> io::Result<()> {
    let mut order: Vec<&StateEffect> = effects.iter().collect();
    order.sort_by_key(|effect| match effect.comparison.verdict {
        Verdict::Changed => 0,
        Verdict::Unchanged => 1,
        Verdict::NotEnoughData => 2,
    });
    for effect in &order {
        let sentence = effect.sentence();
        let shown = match effect.comparison.verdict {
            Verdict::Changed => paint.heading(&sentence),
            Verdict::Unchanged => sentence,
            Verdict::NotEnoughData => paint.faint(&sentence),
        };
        writeln!(out, "{shown}")?;
    }
    writeln!(out)?;
    let mut table = Table::new();
    table.load_style(NOTHING).set_width(width);
    table.set_header(["state", "", "ended", "open", "p50", "p90", "p99", "ends"]);
    for effect in &order {
        for (label, side) in [("before", &effect.a), ("after", &effect.b)] {
            let percentile = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), human::duration);
            let ends: Vec<String> =
                side.ends.iter().map(|(name, count)| format!("{name} {}", human::count(count))).collect();
            table.add_row([
                if label == "before" { effect.name() } else { String::new() },
                label.to_owned(),
                human::count(side.survival.events),
                human::count(side.open),
                percentile(side.survival.p50_ns),
                percentile(side.survival.p90_ns),
                percentile(side.survival.p99_ns),
                ends.join(", "),
            ]);
        }
        let difference: Vec<String> = effect
            .comparison
            .differences
            .iter()
            .map(|difference| difference.ci95.map_or_else(|| "-".to_owned(), interval))
            .collect();
        let mut row = vec![String::new(), "change".to_owned(), String::new(), String::new()];
        row.extend(difference);
        row.push(effect.comparison.p_adjusted.map_or_else(|| "p: -".to_owned(), |p| format!("p = {p:.3}")));
        table.add_row(row);
    }
    for column in 2..7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "{table}")?;
    writeln!(out, "\n{}", paint.faint(NOTE))
}
