//! All about one process, or about processes that hold the same sockets.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::leaks::{Kind, Leak, LeakReport, LeakedSocket, Listening};
use crate::snapshot::{Finished, OpenDwells};
use crate::stacks::Site;
use crate::stats::cells::cell_of;
use crate::text::escape;
use crate::views::histogram::{bar, bins, labels};
use crate::views::human;
use crate::views::page::Page;
use crate::views::paint::Paint;

use super::{Options, WIDE, words};

/// Rows of the histogram of ages, about.
const AGE_ROWS: usize = 6;
/// Longer bars say no more.
const MAX_BAR: usize = 30;
/// Peers, ports, and places in code that are named.
const NAMED: usize = 5;
/// Callers that are named for each place.
const CALLERS: usize = 4;
/// Characters of a command line.
const MAX_CMDLINE: usize = 200;
/// Label column.
const LABEL: usize = 13;

/// `told` are the kinds about which advice was given already.
pub(super) fn write(
    report: &LeakReport,
    group: &[&Leak],
    told: &mut BTreeSet<Kind>,
    options: &Options,
    page: &mut Page,
) {
    let Some(leak) = group.first() else { return };
    page.heading(&words::who(group), Paint::alarm);
    verdicts(leak, page);
    page.blank();
    who_it_is(leak, page);
    origin(report, leak, page);
    peers(leak, page);
    growth(leak, page);
    shared(group, page);
    sites(leak, options, page);
    ages(leak, page);
    sockets(report, leak, options, page);
    advice(leak, told, page);
}

/// A labelled line, continued below itself.
fn line(label: &str, text: &str, page: &mut Page) {
    page.item(&format!("  {label:<LABEL$}"), text);
}

/// `12 sockets: the application was told EOF and kept the socket`, most first.
fn verdicts(leak: &Leak, page: &mut Page) {
    let mut kinds: Vec<_> = leak.kinds.iter().collect();
    kinds.sort_by_key(|(_, tally)| Reverse(tally.sockets));
    let width = kinds.iter().map(|(_, tally)| human::count(tally.sockets).len()).max().unwrap_or(0);
    for (kind, &tally) in kinds {
        let noun = if tally.sockets == 1 { "socket: " } else { "sockets:" };
        let label = format!("{:>width$} {noun} ", human::count(tally.sockets));
        page.item(&label, &kind.rule().verdict(tally));
    }
}

fn who_it_is(leak: &Leak, page: &mut Page) {
    let Some(culprit) = &leak.culprit else {
        let uids: BTreeSet<u32> = leak.sockets.iter().filter_map(|socket| socket.uid).collect();
        let uids: Vec<_> = uids.iter().take(NAMED).map(|uid| format!("uid {uid}")).collect();
        if !uids.is_empty() {
            line("created by", &human::list(&uids), page);
        }
        return;
    };
    if let Some(cmdline) = culprit.cmdline.as_ref().or(culprit.exe.as_ref()) {
        let mut shown: String = cmdline.chars().take(MAX_CMDLINE).collect();
        if shown.len() < cmdline.len() {
            shown.push('…');
        }
        line("command", &shown, page);
    }
    let parts =
        [culprit.uid.map(|uid| format!("uid {uid}")), culprit.unit.clone(), culprit.container_shown.clone()];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if !parts.is_empty() {
        line("runs as", &parts.join(", "), page);
    }
    if let Some(fds) = words::fds(leak) {
        let nearly =
            culprit.fds.open.zip(culprit.fds.limit).is_some_and(|(open, limit)| open * 10 >= limit * 9);
        let text = format!("{fds} in use{}", if nearly { ": EMFILE is near" } else { "" });
        line("descriptors", &text, page);
    }
}

/// Accepted on which port, or opened to where.
fn origin(report: &LeakReport, leak: &Leak, page: &mut Page) {
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    enum Origin {
        Accepted(u32, SocketAddr),
        Opened(u32, SocketAddr),
    }
    let mut origins: BTreeMap<Origin, u64> = BTreeMap::new();
    for LeakedSocket { flow, accepted_on, .. } in &leak.sockets {
        let origin = match accepted_on {
            Some(addr) => Origin::Accepted(flow.netns, *addr),
            None => Origin::Opened(flow.netns, flow.remote_addr()),
        };
        *origins.entry(origin).or_default() += 1;
    }
    let mut origins: Vec<_> = origins.into_iter().collect();
    origins.sort_by_key(|&(_, count)| Reverse(count));
    let all = leak.count();
    let phrases: Vec<_> = origins
        .iter()
        .take(NAMED)
        .map(|(origin, count)| {
            let share = if *count == all { "all".to_owned() } else { human::count(*count) };
            match origin {
                Origin::Accepted(netns, addr) => {
                    let queue = queue_of(leak, *netns, *addr);
                    format!("{share} accepted on {addr}{}{queue}", netns_of(report, *netns))
                }
                Origin::Opened(netns, addr) => {
                    format!(
                        "{share} to {addr}{}: opened by it, or its listener is gone",
                        netns_of(report, *netns)
                    )
                }
            }
        })
        .collect();
    for (index, phrase) in phrases.iter().enumerate() {
        line(if index == 0 { "where" } else { "" }, phrase, page);
    }
    if origins.len() > NAMED {
        line("", &format!("and {} other places", human::count((origins.len() - NAMED) as u64)), page);
    }
}

/// The accept queue, where it is part of the trouble.
fn queue_of(leak: &Leak, netns: u32, addr: SocketAddr) -> String {
    if leak.count_of(Kind::NotAccepted) == 0 {
        return String::new();
    }
    let is_it = |place: &&Listening| place.netns == netns && place.addr == addr && place.queued > 0;
    leak.listening.iter().filter(is_it).max_by_key(|place| place.queued).map_or_else(String::new, |place| {
        format!(
            ", whose accept queue holds {} of at most {}",
            human::count(place.queued.into()),
            // The kernel lets one more in than the backlog (`sk_acceptq_is_full`).
            human::count(u64::from(place.backlog) + 1)
        )
    })
}

fn netns_of(report: &LeakReport, netns: u32) -> String {
    if report.own_netns == Some(netns) {
        return String::new();
    }
    match report.namespaces.get(&netns) {
        Some(name) => format!(" in network namespace {}", escape(name.as_bytes())),
        None => format!(" in network namespace {netns}"),
    }
}

fn peers(leak: &Leak, page: &mut Page) {
    let named: Vec<_> = leak
        .peers
        .iter()
        .take(NAMED)
        .map(|(addr, count)| format!("{addr} × {}", human::count(*count)))
        .collect();
    let more = leak.peers.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {} more", human::count(more as u64)) } else { String::new() };
    line("peers", &format!("{}{more}", named.join(", ")), page);
}

fn growth(leak: &Leak, page: &mut Page) {
    let Some(rate) = leak.rate else { return };
    let figure = words::figure(rate.per_min.abs());
    let mut text = match rate.per_min {
        0.0 => "none while it was watched".to_owned(),
        per_min if per_min > 0.0 => format!("{figure} more every minute"),
        _ => format!("{figure} fewer every minute"),
    };
    if let Some(seconds) = leak.exhausted_in_s() {
        text += &format!(
            ": no descriptor is left (EMFILE) in {}",
            human::duration(seconds.saturating_mul(1_000_000_000))
        );
    }
    line("growth", &text, page);
}

fn shared(group: &[&Leak], page: &mut Page) {
    let Some(leak) = group.first() else { return };
    if leak.shared_with.is_empty() {
        return;
    }
    let name = |pid: &u32| {
        let known = group.iter().filter_map(|leak| leak.culprit.as_ref()).find(|culprit| culprit.pid == *pid);
        known.map_or_else(|| pid.to_string(), words::name)
    };
    let mut named: Vec<_> = leak.shared_with.iter().take(NAMED).map(name).collect();
    let more = leak.shared_with.len().saturating_sub(NAMED);
    if more > 0 {
        named.push(format!("{} more", human::count(more as u64)));
    }
    let only_waiting = leak.count_of(Kind::NotAccepted) == leak.count();
    let text = if only_waiting {
        format!("{} listen on the same socket", human::list(&named))
    } else {
        format!("held by {} too (fork): it ends when every one of them has closed it", human::list(&named))
    };
    line("shared", &text, page);
}

fn sites(leak: &Leak, options: &Options, page: &mut Page) {
    if !options.stacks {
        return;
    }
    let told = places("told EOF in", &leak.sites, "code", page);
    let opened = places("opened in", &leak.opened_at, if leak.sites.is_empty() { "code" } else { "" }, page);
    let label = if leak.sites.is_empty() && leak.opened_at.is_empty() { "code" } else { "" };
    // Where the code that was told is the application's own, nothing is gained by naming more of it.
    let is_named = !leak.sites.is_empty() && leak.sites.iter().all(|site| site.note.is_none());
    let sent = if is_named { &[][..] } else { &leak.sent_at };
    let written = places("written to in", sent, label, page);
    let label = if written > 0 { "" } else { label };
    let reads_end = |socket: &&LeakedSocket| matches!(socket.kind, Kind::EofConsumed | Kind::Held);
    let ended = leak.sockets.iter().filter(reads_end);
    let older = ended.clone().filter(|socket| socket.age.is_none_or(|age| age.is_lower_bound)).count() as u64;
    let missing = (ended.count() as u64).saturating_sub(told);
    let never = leak.count_of(Kind::EofUnread) + leak.count_of(Kind::DataUnread);
    let mut rest = Vec::new();
    if missing > 0 && older > 0 {
        rest.push(format!("{} told EOF before this traced", human::count(missing.min(older))));
    }
    if missing > older {
        rest.push(format!("{} without a stack", human::count(missing - older)));
    }
    if never > 0 && opened == 0 && written == 0 {
        rest.push(format!("{} never told EOF, so no code to name", human::count(never)));
    }
    if !rest.is_empty() {
        line(label, &rest.join("; "), page);
    }
}

/// Places in code, most sockets first; how many sockets they account for.
fn places(what: &str, sites: &[Site], label: &str, page: &mut Page) -> u64 {
    for (index, site) in sites.iter().take(NAMED).enumerate() {
        let label = if index == 0 { label } else { "" };
        let count = human::counted(site.count, "socket");
        line(label, &format!("{count} {what} {}", site.frames.first().map_or("?", String::as_str)), page);
        let callers = site.frames.iter().skip(1);
        callers.clone().take(CALLERS).for_each(|caller| line("", &format!("called by {caller}"), page));
        let more = callers.len().saturating_sub(CALLERS);
        if more > 0 {
            line("", &format!("and {} further up", human::counted(more as u64, "caller")), page);
        }
        if let Some(note) = &site.note {
            line("", &format!("({note})"), page);
        }
    }
    let more = sites.len().saturating_sub(NAMED);
    if more > 0 {
        line("", &format!("and {} more", human::counted(more as u64, "place")), page);
    }
    sites.iter().map(|site| site.count).sum()
}

fn ages(leak: &Leak, page: &mut Page) {
    let known: Vec<_> = leak.sockets.iter().filter_map(|socket| socket.age).collect();
    let mut cells: Vec<_> = known.iter().map(|age| cell_of(age.ns, 1)).collect();
    cells.sort_unstable();
    let open =
        OpenDwells { count: known.len() as u64, oldest: leak.oldest(), ages: cells, ..OpenDwells::default() };
    let bins = bins(&Finished::default(), Some(&open), AGE_ROWS);
    let is_lower_bound = known.iter().any(|age| age.is_lower_bound);
    // One row says no more than the oldest.
    if bins.len() < 2 {
        let text = leak.oldest().map_or_else(
            || "not known".to_owned(),
            |oldest| {
                if leak.count() == 1 {
                    human::age(oldest)
                } else {
                    format!("the oldest {}", human::age(oldest))
                }
            },
        );
        line("age", &text, page);
        return;
    }
    let labels: Vec<_> = labels(&bins).iter().map(|label| page.shown(label)).collect();
    let width = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    let figures: Vec<_> = bins.iter().map(|bin| human::count(bin.open)).collect();
    let figure_width = figures.iter().map(String::len).max().unwrap_or(0);
    let most = bins.iter().map(|bin| bin.open).max().unwrap_or(0);
    let bar_width = page.width().saturating_sub(2 + LABEL + width + figure_width + 4).min(MAX_BAR);
    for (index, (bin, label)) in bins.iter().zip(&labels).enumerate() {
        let title = match (index, is_lower_bound) {
            (0, true) => page.shown("age (≥)"),
            (0, false) => "age".to_owned(),
            _ => String::new(),
        };
        let bar = bar(bin.open, most, bar_width, page.is_ascii());
        let bar = page.paint().state(crate::net::State::CloseWait, &bar);
        page.line(&format!("  {title:<LABEL$}{label:>width$}  {:>figure_width$}  {bar}", figures[index]));
    }
}

/// The oldest, so that there is something to look up with `ls -l /proc/PID/fd`.
fn sockets(report: &LeakReport, leak: &Leak, options: &Options, page: &mut Page) {
    // "Accepted on" has said the local end already.
    let wide = page.width() >= WIDE;
    let first = leak.sockets.first().map(|socket| socket.flow.netns);
    let several = leak.sockets.iter().any(|socket| Some(socket.flow.netns) != first);
    let rows: Vec<_> = leak
        .sockets
        .iter()
        .take(options.sockets)
        .map(|socket| {
            let fd = match socket.fds.as_slice() {
                [] => "-".to_owned(),
                fds => fds.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
            };
            let mut row = vec![format!("  {fd}")];
            if wide {
                row.push(socket.flow.local_addr().to_string());
            }
            row.extend([
                socket.flow.remote_addr().to_string(),
                socket.age.map_or_else(|| "?".to_owned(), human::age),
                unread(socket),
            ]);
            if several {
                row.push(netns_name(report, socket.flow.netns));
            }
            row
        })
        .collect();
    let mut header = vec!["  FD"];
    if wide {
        header.push("LOCAL");
    }
    header.extend(["PEER", "FOR", "UNREAD"]);
    if several {
        header.push("NETNS");
    }
    page.blank();
    page.table(&header, &rows);
    let more = leak.sockets.len().saturating_sub(rows.len());
    if more > 0 {
        page.line(&format!("  {}", page.shown(&format!("… and {} more", human::count(more as u64)))));
    }
}

fn netns_name(report: &LeakReport, netns: u32) -> String {
    report
        .namespaces
        .get(&netns)
        .map_or_else(|| netns.to_string(), |name| escape(name.as_bytes()).into_owned())
}

fn unread(socket: &LeakedSocket) -> String {
    match socket.recv_queue {
        None => "?".to_owned(),
        Some(0) => "-".to_owned(),
        Some(1) => "EOF".to_owned(),
        Some(queue) => format!("{} + EOF", human::bytes(u64::from(queue) - 1)),
    }
}

fn advice(leak: &Leak, told: &mut BTreeSet<Kind>, page: &mut Page) {
    let mut kinds: Vec<_> = leak.kinds.iter().filter(|(kind, _)| told.insert(**kind)).collect();
    kinds.sort_by_key(|(_, tally)| Reverse(tally.sockets));
    if !kinds.is_empty() {
        page.blank();
    }
    for (index, (kind, _)) in kinds.into_iter().enumerate() {
        line(if index == 0 { "what to do" } else { "" }, kind.rule().advice(), page);
    }
}
