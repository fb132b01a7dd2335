//! Where, when, with what, and what was lost: the parts that every page has.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;

use super::markup::Markup;
use super::{Side, table};
use crate::snapshot::{Meta, Part, Snapshot};
use crate::text::escape;
use crate::views::human;
use crate::views::report::overview;

/// The first thing to see where something was lost, and one line where nothing was.
pub(super) fn loss(label: &str, snapshot: &Snapshot, out: &mut Markup) {
    let label = if label.is_empty() { String::new() } else { format!("{label}: ") };
    if snapshot.loss.any() {
        out.leaf("p", &[("class", "alarm")], &format!("{label}{}", overview::loss(snapshot)));
    } else {
        let seen = overview::seen(snapshot);
        out.leaf("p", &[("class", "good")], &format!("{label}{seen}; nothing was lost."));
    }
}

/// What could not be seen, where there is such a thing.
pub(super) fn not_measured(side: &Side<'_>, out: &mut Markup) {
    let missing = overview::not_measured(side.snapshot);
    if missing.is_empty() {
        return;
    }
    let of = if side.label.is_empty() { String::new() } else { format!(": {}", side.label) };
    out.element("section", &[], |out| {
        out.leaf("h2", &[], &format!("Not measured{of}"));
        out.element("ul", &[], |out| missing.iter().for_each(|one| out.leaf("li", &[], one)));
    });
}

/// One column for each snapshot, headed by its label.
pub(super) fn section(sides: &[Side<'_>], zone: &TimeZone, out: &mut Markup) {
    let rows: Vec<_> = FACTS
        .iter()
        .map(|(name, fact)| {
            let facts = sides.iter().map(|side| fact(side.snapshot, zone));
            std::iter::once((*name).to_owned()).chain(facts).collect::<Vec<_>>()
        })
        .filter(|row| row[1..].iter().any(|cell| !cell.is_empty()))
        .collect();
    let mut titles = vec![""];
    titles.extend(sides.iter().map(|side| side.label));
    out.element("section", &[], |out| {
        out.leaf("h2", &[], "Environment");
        for side in sides {
            parts(&side.snapshot.meta, zone, out);
        }
        out.element("div", &[("class", "charts")], |out| {
            out.element("div", &[], |out| table(&titles, &rows, titles.len(), out));
            let sysctls = sysctls(sides);
            if !sysctls.is_empty() {
                let mut titles = titles.clone();
                titles[0] = "Sysctl";
                out.element("div", &[], |out| table(&titles, &sysctls, titles.len(), out));
            }
        });
    });
}

/// The recordings that a snapshot was put together from.
fn parts(meta: &Meta, zone: &TimeZone, out: &mut Markup) {
    if meta.parts.is_empty() {
        return;
    }
    let row = |part: &Part| {
        vec![
            part.host.to_string(),
            shown(&part.recording),
            text(part.kernel.as_deref()),
            shown(&part.filters),
            part.hz.map_or_else(|| "not known".to_owned(), |hz| hz.to_string()),
            time(meta, part.began_ns, zone),
            human::duration(part.ended_ns.saturating_sub(part.began_ns)),
            human::count(part.events),
            human::count(part.loss.total()),
        ]
    };
    let rows: Vec<_> = meta.parts.iter().map(row).collect();
    let titles = ["Host", "Recording", "Kernel", "Filter", "HZ", "From", "Length", "Events", "Lost"];
    table(&titles, &rows, 4, out);
}

type Fact = fn(&Snapshot, &TimeZone) -> String;

const FACTS: &[(&str, Fact)] = &[
    ("Host", |snapshot, _| text(snapshot.meta.host.as_deref())),
    ("Kernel", |snapshot, _| text(snapshot.meta.kernel.as_deref())),
    ("HZ", |snapshot, _| snapshot.meta.hz.map_or_else(|| "not known".to_owned(), |hz| hz.to_string())),
    ("Recording", |snapshot, _| snapshot.meta.recording.as_deref().map_or(String::new(), shown)),
    ("From", |snapshot, zone| time(&snapshot.meta, snapshot.meta.started, zone)),
    ("Until", |snapshot, zone| time(&snapshot.meta, snapshot.meta.now, zone)),
    ("Length", |snapshot, _| human::duration(snapshot.meta.elapsed_ns())),
    ("Filter", |snapshot, _| shown(&snapshot.meta.filters)),
    ("Events", |snapshot, _| human::count(snapshot.meta.events)),
    ("Connections", |snapshot, _| human::count(snapshot.meta.connections)),
    ("Lost", |snapshot, _| match snapshot.loss.total() {
        0 => "nothing".to_owned(),
        lost => human::counted(lost, "event"),
    }),
    ("Programs", |snapshot, _| {
        let names: Vec<_> = snapshot.programs.iter().map(|program| shown(&program.name)).collect();
        names.join(", ")
    }),
    ("tcptrace", |snapshot, _| snapshot.meta.tool_version.clone()),
];

fn text(known: Option<&str>) -> String {
    known.map_or_else(|| "not known".to_owned(), shown)
}

fn shown(text: &str) -> String {
    escape(text.as_bytes()).into_owned()
}

fn time(meta: &Meta, at: u64, zone: &TimeZone) -> String {
    meta.wall.time(at).to_zoned(zone.clone()).strftime("%F %T %Z").to_string()
}

/// A row for each sysctl with its values; where network namespaces differ, how many have which.
fn sysctls(sides: &[Side<'_>]) -> Vec<Vec<String>> {
    let names: BTreeSet<_> = sides
        .iter()
        .flat_map(|side| &side.snapshot.meta.sysctls)
        .flat_map(|sysctls| sysctls.values.keys())
        .collect();
    let cell = |snapshot: &Snapshot, name: &String| {
        let mut values: BTreeMap<&str, u64> = BTreeMap::new();
        for value in snapshot.meta.sysctls.iter().filter_map(|sysctls| sysctls.values.get(name)) {
            *values.entry(value).or_default() += 1;
        }
        match values.len() {
            0 => "–".to_owned(),
            1 => values.keys().map(|value| shown(value)).collect(),
            _ => {
                let by_value = values.iter().map(|(value, count)| {
                    format!("{} in {}", shown(value), human::counted(*count, "namespace"))
                });
                by_value.collect::<Vec<_>>().join(", ")
            }
        }
    };
    let row = |name: &String| {
        std::iter::once(shown(name)).chain(sides.iter().map(|side| cell(side.snapshot, name))).collect()
    };
    names.into_iter().map(row).collect()
}
