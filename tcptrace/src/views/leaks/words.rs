//! Phrases about leaks.

use std::time::Duration;

use crate::leaks::{Culprit, Kind, Leak, LeakReport};
use crate::settings::duration;
use crate::views::human;

/// `1 process`, `3 processes`.
pub(super) fn processes(n: u64) -> String {
    format!("{} process{}", human::count(n), if n == 1 { "" } else { "es" })
}

/// `2 processes leak 34 sockets in CLOSE_WAIT, the oldest for at least 3 m 12 s`.
pub(super) fn verdict(report: &LeakReport) -> String {
    let totals = &report.totals;
    let ownerless: u64 = report.leaks.iter().filter(|leak| leak.culprit.is_none()).map(Leak::count).sum();
    let owned = totals.sockets.saturating_sub(ownerless);
    let mut culprits = report.leaks.iter().filter_map(|leak| leak.culprit.as_ref());
    let who = match (culprits.next(), report.processes()) {
        (None, _) => None,
        (Some(only), 1) => Some(format!("{} leaks", name(only))),
        (Some(_), several) => Some(format!("{} leak", processes(several))),
    };
    let sockets = |n| format!("{} in CLOSE_WAIT", human::counted(n, "socket"));
    let what = match who {
        None if ownerless == 1 => format!("{} has no owner that can be seen", sockets(ownerless)),
        None => format!("{} have no owner that can be seen", sockets(ownerless)),
        Some(who) if ownerless == 0 => format!("{who} {}", sockets(owned)),
        Some(who) => format!("{who} {}, {} more without an owner", sockets(owned), human::count(ownerless)),
    };
    let oldest = totals.oldest.map_or_else(String::new, |oldest| {
        let which = if totals.sockets == 1 { "" } else { "the oldest " };
        let at_least = if oldest.is_lower_bound { "at least " } else { "" };
        format!(", {which}for {at_least}{}", human::duration(oldest.ns))
    });
    format!("{what}{oldest}")
}

/// `no socket has been in CLOSE_WAIT for 10s or longer`.
pub(super) fn none(report: &LeakReport) -> String {
    if report.min_age_ns == 0 {
        return "no socket is in CLOSE_WAIT".to_owned();
    }
    format!("no socket has been in CLOSE_WAIT for {} or longer", limit(report))
}

/// What was looked at, so that a clean answer can be believed.
pub(super) fn looked_at(report: &LeakReport) -> String {
    let looked = &report.looked;
    let mut text = format!(
        "Looked at {} in CLOSE_WAIT in {}",
        human::counted(looked.close_wait, "socket"),
        human::counted(looked.namespaces, "network namespace")
    );
    if let (Some(count), Some(fds)) = (looked.processes, looked.fds) {
        text += &format!(" and {} of {}", human::counted(fds, "descriptor"), processes(count));
    }
    text += &report.watched_ns.map_or_else(String::new, |ns| format!("; traced for {}", human::duration(ns)));
    text.push('.');
    let ageless = report.totals.ageless;
    let young = report.totals.young - ageless;
    if young > 0 {
        text += &format!(
            " {} {} known to have been so for {}: no leak yet.",
            human::count(young),
            if young == 1 { "is not" } else { "are not" },
            limit(report)
        );
    }
    if ageless > 0 {
        text += &format!(
            " For how long {} {} been so the kernel does not tell: --duration watches {}.",
            human::count(ageless),
            if ageless == 1 { "has" } else { "have" },
            if ageless == 1 { "it" } else { "them" },
        );
    }
    text
}

/// The least age of a leak, as it was given.
pub(super) fn limit(report: &LeakReport) -> String {
    duration::exact(Duration::from_nanos(report.min_age_ns))
}

/// `nginx[812]`.
pub(super) fn name(culprit: &Culprit) -> String {
    format!("{}[{}]", culprit.comm, culprit.pid)
}

/// Who is to blame, with those who hold the same: `nginx[812] and 3 more`.
#[must_use]
pub fn who(group: &[&Leak]) -> String {
    let Some(leak) = group.first() else { return String::new() };
    match &leak.culprit {
        None => nobody(leak).to_owned(),
        Some(culprit) if group.len() == 1 => name(culprit),
        Some(culprit) => format!("{} and {} more", name(culprit), human::count(group.len() as u64 - 1)),
    }
}

/// What stands in place of a process.
pub(super) fn nobody(leak: &Leak) -> &'static str {
    match leak.sockets.first().map(|socket| socket.kind) {
        Some(Kind::InFlight) => "no process",
        Some(Kind::Detached) => "the kernel alone",
        Some(Kind::NotAccepted) => "unknown listener",
        _ => "unknown process",
    }
}

/// The commonest of a process's leaks, in a word or two.
#[must_use]
pub fn mostly(leak: &Leak) -> &'static str {
    let most = leak.kinds.iter().max_by_key(|(_, tally)| tally.sockets).map(|(&kind, _)| kind);
    match most {
        Some(Kind::EofConsumed) => "EOF read, kept",
        Some(Kind::EofUnread) => "EOF unread",
        Some(Kind::DataUnread) => "data unread",
        Some(Kind::NotAccepted) => "not accepted",
        Some(Kind::InFlight) => "in flight",
        Some(Kind::Unseen) => "not seen",
        Some(Kind::Detached) => "detached",
        Some(Kind::Held) | None => "?",
    }
}

/// `312 of 1,024`.
pub(super) fn fds(leak: &Leak) -> Option<String> {
    let fds = leak.culprit.as_ref()?.fds;
    let open = human::count(fds.open?);
    Some(match fds.limit {
        Some(limit) => format!("{open} of {}", human::count(limit)),
        None => open,
    })
}

/// The same in a table: `?` where it is not known, `-` where there is no process.
#[must_use]
pub fn fds_cell(leak: &Leak) -> String {
    fds(leak).unwrap_or_else(|| if leak.culprit.is_some() { "?" } else { "-" }.to_owned())
}

/// Sockets more a minute, in a table: `+1.5`.
#[must_use]
pub fn growth_cell(leak: &Leak) -> String {
    match leak.rate {
        None => "?".to_owned(),
        Some(rate) if rate.per_min == 0.0 => "0".to_owned(),
        Some(rate) => format!("{}{}", if rate.per_min > 0.0 { "+" } else { "−" }, figure(rate.per_min.abs())),
    }
}

/// A rate to two or three digits.
pub(super) fn figure(per_min: f64) -> String {
    // The cast saturates.
    if per_min < 9.95 { format!("{per_min:.1}") } else { human::count(per_min.round() as u64) }
}
