//! `report` as a page: the figures, sentences and tables of the text report, with pictures.

use jiff::tz::TimeZone;

use super::curve::Curve;
use super::markup::Markup;
use super::{Side, bars, class_of, environment, figure, page, paragraphs, table};
use crate::net::State;
use crate::snapshot::{Ends, Snapshot, StateReport};
use crate::views::report::{NOTHING, Options, overview, with_dwells, words};
use crate::views::{human, transitions};

/// Rows of a table of processes or keys at most.
const ROWS: usize = 20;
/// Keys in one picture at most: more lines cannot be told apart.
const KEYS_DRAWN: usize = 5;

/// The page.
#[must_use]
pub fn write(snapshot: &Snapshot, zone: &TimeZone) -> String {
    let host = snapshot.meta.host.as_deref().map(|host| crate::text::escape(host.as_bytes()));
    let host = host.map_or(String::new(), |host| format!(" on {host}"));
    let title = format!("How long TCP’s closing states last{host}");
    page(&title, |out| {
        out.element("header", &[], |out| {
            out.leaf("h1", &[], &title);
            let options = Options { zone: zone.clone(), ..Options::default() };
            out.leaf("p", &[("class", "origin")], &overview::origin(snapshot, &options));
            environment::loss("", snapshot, out);
            paragraphs(&overview::alarms(snapshot), "alarm", out);
        });
        let reports = with_dwells(snapshot);
        if reports.is_empty() {
            out.leaf("p", &[], NOTHING);
        } else {
            all_states(&reports, out);
        }
        for report in reports.iter().filter(|report| report.state != State::Listen) {
            section(snapshot, report, out);
        }
        who(snapshot, out);
        let trace = Side { label: "", snapshot };
        environment::section(&[trace], zone, out);
        environment::not_measured(&trace, out);
    })
}

fn all_states(reports: &[&StateReport], out: &mut Markup) {
    out.element("section", &[], |out| {
        out.leaf("h2", &[], "All states");
        let mut titles = vec!["State"];
        titles.extend(titles_of(overview::titles(true)));
        let rows: Vec<_> = reports.iter().map(|report| row(name(report), report, true)).collect();
        table(&titles, &rows, 1, out);
        out.leaf("p", &[("class", "note")], "Percentiles count open sockets too (Kaplan–Meier): > is not reached yet, ≥ older than this trace.");
        out.element("div", &[("class", "charts")], |out| {
            let curves: Vec<_> = reports
                .iter()
                .filter_map(|report| {
                    Curve::ecdf(name(report), class_of(report.state, report.phase).to_owned(), &report.finished)
                })
                .collect();
            if !curves.is_empty() {
                figure("Share of the finished dwells that took no longer (ECDF)", &curves, out);
            }
            ends(reports, out);
        });
    });
}

/// Why dwells ended, as a table of states and reasons.
fn ends(reports: &[&StateReport], out: &mut Markup) {
    let of = |report: &StateReport, wanted: &str| {
        report.ends.iter().find(|(name, _)| *name == wanted).map_or(0, |(_, count)| count)
    };
    let occurring: Vec<_> =
        Ends::NAMES.into_iter().filter(|name| reports.iter().any(|report| of(report, name) > 0)).collect();
    if occurring.is_empty() {
        return;
    }
    let mut titles = vec!["Ended by"];
    let words: Vec<_> = occurring.iter().map(|name| name.replace('_', " ")).collect();
    titles.extend(words.iter().map(String::as_str));
    let rows: Vec<_> = reports
        .iter()
        .filter(|report| report.ends.total() > 0)
        .map(|report| {
            let cell = |wanted: &&str| match of(report, wanted) {
                0 => "–".to_owned(),
                count => human::count(count),
            };
            std::iter::once(name(report)).chain(occurring.iter().map(cell)).collect()
        })
        .collect();
    out.element("div", &[], |out| table(&titles, &rows, 1, out));
}

fn section(snapshot: &Snapshot, report: &StateReport, out: &mut Markup) {
    let class = class_of(report.state, report.phase);
    out.element("section", &[], |out| {
        out.leaf("h2", &[("class", class)], &name(report));
        out.leaf("p", &[], &words::headline(report));
        out.element("div", &[("class", "charts")], |out| charts(snapshot, report, class, out));
        let mut sentences = words::ends(report);
        sentences.extend(words::explanation(snapshot, report));
        paragraphs(&sentences, "", out);
        keyed(snapshot, report, out);
    });
}

fn charts(snapshot: &Snapshot, report: &StateReport, class: &str, out: &mut Markup) {
    // A single dwell has neither a distribution nor a curve.
    if report.finished.count + report.open.count < 2 {
        return;
    }
    let mut histogram = Markup::default();
    if bars::of_report(report, class, &mut histogram) {
        let open = if report.shows_open() { "; hollow, and with a +: still open, by age" } else { "" };
        out.element("figure", &[], |out| {
            out.leaf("figcaption", &[], &format!("Dwells by length{open}"));
            out.append(histogram);
        });
    }
    if let Some(survival) = Curve::survival("with open ones".to_owned(), class.to_owned(), report) {
        let open = if survival.has_marks() { "; ticks: open ones" } else { "" };
        let caption = format!("Share still in the state (Kaplan–Meier, 95 % band{open})");
        figure(&caption, &[survival], out);
    }
    let keys = of_state(snapshot, report).take(KEYS_DRAWN).enumerate();
    let curves: Vec<_> = keys
        .filter_map(|(rank, keyed)| Curve::ecdf(human::whose(keyed), format!("k{rank}"), &keyed.finished))
        .collect();
    if let (Some(title), 2..) = (snapshot.keyed_title(), curves.len()) {
        let caption = format!("Share that took no longer (ECDF), by {title}");
        figure(&caption, &curves, out);
    }
}

fn of_state<'a>(snapshot: &'a Snapshot, report: &StateReport) -> impl Iterator<Item = &'a StateReport> {
    let (state, phase) = (report.state, report.phase);
    snapshot.keyed().filter(move |keyed| keyed.state == state && keyed.phase == phase && keyed.has_dwells())
}

fn keyed(snapshot: &Snapshot, report: &StateReport, out: &mut Markup) {
    let Some(title) = snapshot.keyed_title() else { return };
    let keyed: Vec<_> = of_state(snapshot, report).collect();
    let rows: Vec<_> = keyed.iter().take(ROWS).map(|keyed| row(human::whose(keyed), keyed, true)).collect();
    if rows.is_empty() {
        return;
    }
    let kind = capitalised(title);
    let mut titles = vec![kind.as_str()];
    titles.extend(titles_of(overview::titles(true)));
    table(&titles, &rows, 1, out);
    if keyed.len() > rows.len() {
        let more = human::count((keyed.len() - rows.len()) as u64);
        out.leaf("p", &[("class", "note")], &format!("… and {more} more."));
    }
}

/// Who made the TIME_WAITs and who holds the CLOSE_WAITs.
fn who(snapshot: &Snapshot, out: &mut Markup) {
    let tally = &snapshot.time_wait;
    let holders = &snapshot.close_wait_holders;
    if tally.total == 0 && holders.top.is_empty() {
        return;
    }
    out.element("section", &[], |out| {
        out.leaf("h2", &[], "Who");
        out.element("div", &[("class", "charts")], |out| {
            let held = snapshot.open_in(State::CloseWait);
            ranking("CLOSE_WAIT now, held by", held, holders.undercount, &processes(&holders.top), out);
            ranking(
                "TIME_WAIT made by",
                tally.total,
                tally.owners.undercount,
                &processes(&tally.owners.top),
                out,
            );
            let to = |(process, to): &(Option<_>, std::net::SocketAddr)| {
                format!("{} to {to}", human::process(process.as_ref()))
            };
            let remotes: Vec<_> = tally.remotes.top.iter().map(|(key, count)| (to(key), *count)).collect();
            // A server's go to as many ports as it has clients: that list says nothing.
            if remotes.iter().any(|(_, count)| count * 10 >= tally.total) {
                ranking("TIME_WAIT towards", tally.total, tally.remotes.undercount, &remotes, out);
            }
        });
    });
}

fn processes(top: &[(Option<crate::snapshot::ProcessKey>, u64)]) -> Vec<(String, u64)> {
    top.iter().map(|(process, count)| (human::process(process.as_ref()), *count)).collect()
}

fn ranking(title: &str, total: u64, undercount: u64, entries: &[(String, u64)], out: &mut Markup) {
    if entries.is_empty() {
        return;
    }
    let rows: Vec<_> = entries
        .iter()
        .take(ROWS / 2)
        .map(|(name, count)| vec![name.clone(), human::count(*count), human::percent(*count, total)])
        .collect();
    out.element("div", &[], |out| {
        table(&[title, "Sockets", "Share"], &rows, 1, out);
        let left_out = entries.len().saturating_sub(rows.len());
        let mut notes = Vec::new();
        if left_out > 0 {
            notes.push(format!("… and {} more.", human::count(left_out as u64)));
        }
        if undercount > 0 {
            notes.push(format!("Each count may be too low by up to {}.", human::count(undercount)));
        }
        paragraphs(&notes, "note", out);
    });
}

fn name(report: &StateReport) -> String {
    transitions::state(report.state, report.phase)
}

fn row(name: String, report: &StateReport, is_wide: bool) -> Vec<String> {
    std::iter::once(name).chain(overview::figures(report, is_wide)).collect()
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}

/// `P50` stays, `LONGEST` need not shout here.
fn titles_of<'a>(titles: Vec<&'static str>) -> impl Iterator<Item = &'a str> {
    titles.into_iter().map(|title| match title {
        "ENDED" => "Ended",
        "LONGEST" => "Longest",
        "OPEN" => "Open",
        "OLDEST" => "Oldest",
        other => other,
    })
}
