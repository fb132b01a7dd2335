//! The top of the report: where and when, what was lost, what is wrong, all states in one table; and its end.

use crate::net::State;
use crate::outcome::End;
use crate::snapshot::{Meta, Part, Snapshot, StateReport};
use crate::views::human;
use crate::views::paint::Paint;
use crate::views::transitions;

use super::{NOTHING, Options, with_dwells, words};
use crate::views::page::Page;

/// From here on a CLOSE_WAIT is called held rather than about to be closed: the default of `leaks --min-age`.
const HELD_NS: u64 = 10_000_000_000;
/// From this width on the table has all percentiles.
const WIDE: usize = 100;
/// Places that connect() failed to reach, shown at most.
const FAILED_TO: usize = 3;

pub(super) fn write(snapshot: &Snapshot, options: &Options, page: &mut Page) {
    page.item("", &origin(snapshot, options));
    if snapshot.loss.any() {
        page.alarm(&loss(snapshot));
    } else {
        page.paragraph(&format!("{}; nothing was lost.", seen(snapshot)));
    }
    let alarms = alarms(snapshot);
    if !alarms.is_empty() {
        page.blank();
    }
    for alarm in alarms {
        page.alarm(&alarm);
    }
    page.blank();
    table(snapshot, page);
}

/// Host, kernel, time.
pub(in crate::views) fn origin(snapshot: &Snapshot, options: &Options) -> String {
    let meta = &snapshot.meta;
    if !meta.parts.is_empty() {
        return origin_of_parts(meta, options);
    }
    let host = meta.host.as_deref().map(|host| crate::text::escape(host.as_bytes()));
    let kernel = meta.kernel.as_deref().map(|kernel| crate::text::escape(kernel.as_bytes()));
    let mut about: Vec<String> = kernel.map(|kernel| format!("Linux {kernel}")).into_iter().collect();
    about.extend(meta.hz.map(|hz| format!("HZ {hz}")));
    let mut text = match (&meta.recording, host) {
        (Some(recording), Some(host)) => {
            format!("Recording {} of {host}", crate::text::escape(recording.as_bytes()))
        }
        (Some(recording), None) => format!("Recording {}", crate::text::escape(recording.as_bytes())),
        (None, Some(host)) => format!("Traced {host}"),
        (None, None) => "Traced".to_owned(),
    };
    if !about.is_empty() {
        text += &format!(" ({})", about.join(", "));
    }
    let end = meta.wall.time(meta.now).to_zoned(options.zone.clone());
    text += &format!(" for {}, until {}.", human::duration(meta.elapsed_ns()), end.strftime("%F %T %Z"));
    if !meta.filters.is_empty() {
        text += &format!(" Filter: {}.", crate::text::escape(meta.filters.as_bytes()));
    }
    text
}

/// The same of several recordings.
fn origin_of_parts(meta: &Meta, options: &Options) -> String {
    let mut hosts: Vec<_> = meta.parts.iter().map(|part| part.host).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let one = |part: &Part| {
        let kernel = part.kernel.as_deref().map(|kernel| crate::text::escape(kernel.as_bytes()));
        let mut about =
            vec![format!("{} long", human::duration(part.ended_ns.saturating_sub(part.began_ns)))];
        about.extend(kernel.map(|kernel| format!("Linux {kernel}")));
        about.extend(part.hz.map(|hz| format!("HZ {hz}")));
        format!("{} of {} ({})", part.recording, part.host, about.join(", "))
    };
    let parts: Vec<_> = meta.parts.iter().map(one).collect();
    let end = meta.wall.time(meta.now).to_zoned(options.zone.clone());
    let mut text = format!(
        "{} of {}: {}. They cover {}, until {}.",
        human::counted(meta.parts.len() as u64, "recording"),
        human::counted(hosts.len() as u64, "host"),
        human::list(&parts),
        human::duration(meta.elapsed_ns()),
        end.strftime("%F %T %Z")
    );
    if !meta.filters.is_empty() {
        text += &format!(" Filter: {}.", crate::text::escape(meta.filters.as_bytes()));
    }
    text
}

pub(in crate::views) fn seen(snapshot: &Snapshot) -> String {
    let meta = &snapshot.meta;
    let (events, connections) =
        (human::counted(meta.events, "event"), human::counted(meta.connections, "connection"));
    // Some filters decide only when an owner is known: what they leave out has been counted by then.
    if meta.filters.is_empty() {
        format!("{events}, {connections}")
    } else {
        format!("{events}, {connections} looked at")
    }
}

/// What was not seen, what that means and what to do about it.
pub(in crate::views) fn loss(snapshot: &Snapshot) -> String {
    let loss = &snapshot.loss;
    let mut causes = Vec::new();
    if loss.ring_full > 0 {
        causes.push(format!("{} found no room in the ring buffer", human::counted(loss.ring_full, "event")));
    }
    if loss.skipped_runs > 0 {
        causes.push(format!("the kernel skipped {}", human::counted(loss.skipped_runs, "program run")));
    }
    if loss.table_full > 0 {
        causes.push(format!("{} found no room in our tables", human::counted(loss.table_full, "connection")));
    }
    if loss.vanished > 0 {
        causes.push(format!(
            "{} in what the kernel told, which it did not count",
            human::counted(loss.vanished, "gap")
        ));
    }
    let mut text = format!(
        "LOSS: {}. Counts below are too low; a dwell that lost its beginning or its end is left out, so that \
         the others are right.",
        human::list(&causes)
    );
    let (seen, told) = (snapshot.meta.events, loss.told(snapshot.meta.events));
    if seen < told {
        text += &format!(" {} of all events were seen.", human::percent(seen, told));
    }
    if !snapshot.lost_transitions.is_empty() {
        text += &format!(" Lost transitions, counted in the kernel: {}.", lost_transitions(snapshot));
    }
    if loss.resyncs > 0 {
        text += &format!(" All sockets were listed anew {}.", times(loss.resyncs));
    }
    if loss.ring_full > 0 {
        text += " A larger --ring-size or a filter helps.";
    }
    text
}

/// Kinds of transitions named at most: the paths of all connections that close have eight.
const LOST_KINDS: usize = 8;

/// How many transitions of which kind found no room, most first.
fn lost_transitions(snapshot: &Snapshot) -> String {
    let mut lost: Vec<_> = snapshot.lost_transitions.iter().collect();
    lost.sort_by_key(|lost| std::cmp::Reverse(lost.count));
    let rest: u64 = lost.iter().skip(LOST_KINDS).map(|lost| lost.count).sum();
    let named = lost.iter().take(LOST_KINDS);
    let mut words: Vec<_> =
        named.map(|lost| format!("{} {}→{}", human::count(lost.count), lost.from, lost.to)).collect();
    if rest > 0 {
        words.push(format!("{} others", human::count(rest)));
    }
    human::list(&words)
}

fn times(n: u64) -> String {
    if n == 1 { "once".to_owned() } else { format!("{} times", human::count(n)) }
}

/// What a person should look at first.
pub(in crate::views) fn alarms(snapshot: &Snapshot) -> Vec<String> {
    let mut alarms = Vec::new();
    if let Some(report) = snapshot.of(State::CloseWait, None)
        && let Some(oldest) = report.open.oldest.filter(|oldest| oldest.ns >= HELD_NS)
    {
        alarms.push(format!(
            "{} in CLOSE_WAIT, {}: the peer has closed, the application has not.{}",
            human::counted(report.open.count, "socket"),
            words::lasting(report.open.count, oldest),
            words::holders(snapshot).map_or_else(String::new, |holders| format!(" {holders}"))
        ));
    }
    let overflows: u64 = snapshot.overall().map(|report| report.ends.get(Some(End::Overflow))).sum();
    if overflows > 0 {
        alarms.push(format!(
            "{} without TIME_WAIT, because tcp_max_tw_buckets{} was reached: a late segment of one may end up \
             in its successor.",
            human::counted(overflows, "connection"),
            words::sysctl(snapshot, |sysctls| sysctls.tcp_max_tw_buckets)
                .map_or_else(String::new, |value| format!(" ({value})"))
        ));
    }
    let failures = &snapshot.connect_failures;
    if failures.count > 0 {
        let mut by: Vec<_> = failures
            .by
            .top
            .iter()
            .take(FAILED_TO)
            .map(|((process, to), count)| {
                format!("{} to {to} ({})", human::process(process.as_ref()), human::count(*count))
            })
            .collect();
        if failures.by.top.len() > FAILED_TO {
            by.push("others".to_owned());
        }
        alarms.push(format!(
            "connect() failed {} for want of a local port or a route: {}.",
            times(failures.count),
            human::list(&by)
        ));
    }
    alarms
}

fn table(snapshot: &Snapshot, page: &mut Page) {
    let reports = with_dwells(snapshot);
    if reports.is_empty() {
        page.paragraph(NOTHING);
        return;
    }
    let is_wide = page.width() >= WIDE;
    let rows: Vec<_> = reports
        .iter()
        .map(|report| {
            let mut row = vec![transitions::state(report.state, report.phase)];
            row.extend(figures(report, is_wide));
            row
        })
        .collect();
    let mut header = vec!["STATE"];
    header.extend(titles(is_wide));
    page.table(&header, &rows);
    let note =
        "Percentiles count open sockets too (Kaplan–Meier): > is not reached yet, ≥ older than this trace.";
    page.note(note);
}

/// Titles of [`figures`].
pub(in crate::views) fn titles(is_wide: bool) -> Vec<&'static str> {
    if is_wide {
        vec!["ENDED", "P50", "P90", "P99", "LONGEST", "OPEN", "OLDEST"]
    } else {
        vec!["ENDED", "P50", "P99", "OPEN", "OLDEST"]
    }
}

/// The figures of a report as cells of a table. Percentiles are those that count open sockets.
pub(in crate::views) fn figures(report: &StateReport, is_wide: bool) -> Vec<String> {
    let survival = &report.survival;
    let percentile = |ns| human::percentile(report, ns);
    let ended = human::count(report.finished.count + report.began_before.count);
    let open =
        [human::count(report.open.count), report.open.oldest.map_or_else(|| "-".to_owned(), human::age)];
    let mut cells = vec![ended, percentile(survival.p50_ns)];
    if is_wide {
        cells.push(percentile(survival.p90_ns));
    }
    cells.push(percentile(survival.p99_ns));
    if is_wide {
        cells.push(report.finished.max_ns.map_or_else(|| "-".to_owned(), human::duration));
    }
    cells.extend(open);
    cells
}

/// What could not be measured here, and how keys were cut.
pub(super) fn write_end(snapshot: &Snapshot, page: &mut Page) {
    let missing = not_measured(snapshot);
    if missing.is_empty() {
        return;
    }
    page.heading("Not measured", Paint::heading);
    for sentence in missing {
        page.item("- ", &sentence);
    }
}

/// The same as sentences.
pub(in crate::views) fn not_measured(snapshot: &Snapshot) -> Vec<String> {
    let folded = snapshot.keyed_by.filter(|keying| keying.folded > 0).map(|keying| {
        format!(
            "Only the first {} were kept apart by {}; {} of others are counted together.",
            human::count(keying.limit as u64),
            keying.kind.name(),
            human::counted(keying.folded, "transition")
        )
    });
    let hooks = snapshot.skipped.iter().map(|hook| format!("{}: {}", hook.name, hook.why));
    let notes = snapshot.notes.iter().map(|note| crate::text::escape(note.as_bytes()).into_owned());
    folded.into_iter().chain(hooks).chain(notes).collect()
}
