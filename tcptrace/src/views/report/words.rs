//! What the figures of a state mean, in sentences.

use crate::net::State;
use crate::outcome::{End, Phase};
use crate::snapshot::{Age, Finished, ProcessKey, Ranking, Snapshot, StateReport, Sysctls, TimeWaitTally};
use crate::views::human;
use crate::wheel::Expected;

/// From so many dwells on, shares of them mean something.
const SHARES_FROM: u64 = 10;
/// Processes that are named, and the share from which a second one is.
const NAMED: usize = 3;
const WORTH_NAMING: f64 = 0.05;
/// `TCP_TIMEWAIT_LEN` of the kernel's source; vendors may differ.
const USUAL_TIME_WAIT_NS: u64 = 60_000_000_000;

/// The value of a sysctl, or values where network namespaces differ; `None` where not known.
pub(super) fn sysctl(snapshot: &Snapshot, value: fn(&Sysctls) -> Option<u32>) -> Option<String> {
    let mut values: Vec<_> = snapshot.meta.sysctls.iter().filter_map(value).collect();
    values.sort_unstable();
    values.dedup();
    match values.as_slice() {
        [] => None,
        [only] => Some(human::count((*only).into())),
        several => Some(format!(
            "{} by network namespace",
            several.iter().map(u32::to_string).collect::<Vec<_>>().join(" or ")
        )),
    }
}

/// How many ended, how many did not, how long both took.
pub(in crate::views) fn headline(report: &StateReport) -> String {
    let mut sentences = vec![ended(&report.finished)];
    let before = &report.began_before;
    if before.count > 0 {
        let more = if report.finished.count > 0 { " more" } else { "" };
        let (they, one) = if before.count == 1 { ("it", "") } else { ("they", "one of them ") };
        let longest = before
            .longest_at_least_ns
            .filter(|&ns| ns > 0)
            .map_or_else(String::new, |ns| format!(", but {one}at least {}", human::duration(ns)));
        sentences.push(format!(
            "{}{more} ended that had begun before this trace: how long {they} took is not known{longest}.",
            human::count(before.count),
        ));
    }
    if let Some(oldest) = report.open.oldest {
        sentences.push(open(report.open.count, report.open.began_before, oldest));
    }
    sentences.join(" ")
}

fn ended(finished: &Finished) -> String {
    let (Some(min), Some(max)) = (finished.min_ns, finished.max_ns) else {
        return "None was seen from beginning to end.".to_owned();
    };
    let (shortest, longest) = (human::duration(min), human::duration(max));
    let count = human::count(finished.count);
    match finished.count {
        1 => format!("1 ended, after {longest}."),
        2..SHARES_FROM => format!("{count} ended, after {shortest} to {longest}."),
        _ => format!(
            "{count} ended: half of them within {}, 90 % within {}, 99 % within {}; the shortest took {shortest}, \
             the longest {longest}.",
            human::duration_or_unknown(finished.p50_ns),
            human::duration_or_unknown(finished.p90_ns),
            human::duration_or_unknown(finished.p99_ns),
        ),
    }
}

/// `the oldest for at least 2 d 4 h`.
pub(super) fn lasting(count: u64, oldest: Age) -> String {
    let which = if count == 1 { "" } else { "the oldest " };
    let at_least = if oldest.is_lower_bound { "at least " } else { "" };
    format!("{which}for {at_least}{}", human::duration(oldest.ns))
}

fn open(count: u64, began_before: u64, oldest: Age) -> String {
    let are = |n: u64| if n == 1 { "is" } else { "are" };
    let older = match began_before {
        0 => String::new(),
        n if n == count && n == 1 => "; it is older than this trace and in no percentile".to_owned(),
        n if n == count => "; all are older than this trace and in no percentile".to_owned(),
        n => format!("; {} {} older than this trace and in no percentile", human::count(n), are(n)),
    };
    format!("{} {} open now, {}{older}.", human::count(count), are(count), lasting(count, oldest))
}

/// Why dwells ended; nothing when all moved on, which is what most states do.
pub(in crate::views) fn ends(report: &StateReport) -> Vec<String> {
    let phrase = |name: &str, count: u64| {
        let were = if count == 1 { "was" } else { "were" };
        let rest = match name {
            "expired" => "ran the full time".to_owned(),
            "reused" => format!("{were} taken over by a new connection"),
            "reset" => "ended by RST".to_owned(),
            "destroyed" => format!("{were} destroyed (ss -K, abort or the end of the namespace)"),
            "timed_out" => "timed out".to_owned(),
            "overflow" => "found tcp_max_tw_buckets reached and got no TIME_WAIT".to_owned(),
            _ => "moved on to the next state".to_owned(),
        };
        format!("{} {rest}", human::count(count))
    };
    if report.ends.get(None) == report.ends.total() {
        return Vec::new();
    }
    let phrases: Vec<_> = report.ends.iter().map(|(name, count)| phrase(name, count)).collect();
    vec![format!("Ends: {}.", human::list(&phrases))]
}

/// What limits the state, and how the measurement compares.
pub(in crate::views) fn explanation(snapshot: &Snapshot, report: &StateReport) -> Vec<String> {
    match (report.state, report.phase) {
        (State::CloseWait, _) => close_wait(snapshot, report),
        (State::TimeWait, _) => {
            let mut sentences = makers(&snapshot.time_wait);
            sentences.extend(time_wait(snapshot, report));
            sentences
        }
        (State::FinWait2, Some(Phase::Orphaned)) => orphaned(snapshot, report),
        (State::FinWait2, Some(Phase::HalfClosed)) => vec![
            "The application has called shutdown() and still holds the socket: this lasts until the peer closes. \
             No timer runs; tcp_fin_timeout does not apply."
                .to_owned(),
        ],
        (State::FinWait2, None) => vec![
            "Neither half-closed nor orphaned: as a rule the peer's FIN came with the ACK of ours, and the connection \
             went straight on."
                .to_owned(),
        ],
        _ => Vec::new(),
    }
}

fn close_wait(snapshot: &Snapshot, report: &StateReport) -> Vec<String> {
    if report.open.count == 0 {
        return vec![
            "The peer closed first, and then the application did: none is left, no leak was seen.".to_owned(),
        ];
    }
    let mut sentences: Vec<_> = holders(snapshot).into_iter().collect();
    sentences.push(
        "The peer has closed, the application has not. Only its own close() or a reset ends this: no timeout, no \
         sysctl. What stays is a leak and keeps its descriptor; `tcptrace leaks` tells more."
            .to_owned(),
    );
    sentences
}

/// `java[77] holds 31 of them.` `None` where no owner is known.
pub(super) fn holders(snapshot: &Snapshot) -> Option<String> {
    let total = snapshot.open_in(State::CloseWait);
    let holders = &snapshot.close_wait_holders;
    let named: Vec<_> = most(holders, total)
        .filter_map(|(process, count)| {
            let process = human::process(Some(process.as_ref()?));
            let at_least = if holders.undercount > 0 { "at least " } else { "" };
            let share = if *count == total { "all".to_owned() } else { human::count(*count) };
            Some(format!("{process} holds {at_least}{share} of them"))
        })
        .collect();
    (!named.is_empty()).then(|| format!("{}.", human::list(&named)))
}

/// The first, and those behind it that are worth naming.
fn most<T>(ranking: &Ranking<T>, total: u64) -> impl Iterator<Item = &(T, u64)> {
    let is_worth = move |count: u64| count as f64 >= total as f64 * WORTH_NAMING;
    let ranked = ranking.top.iter().take(NAMED).enumerate();
    ranked.filter(move |&(rank, &(_, count))| rank == 0 || is_worth(count)).map(|(_, entry)| entry)
}

/// What the timer was asked for and what the timer wheel makes of it. `None` without a timer or HZ.
fn expected(snapshot: &Snapshot, report: &StateReport) -> Option<Expected> {
    Expected::of_most(&report.timeout?, snapshot.meta.hz?)
}

fn time_wait(snapshot: &Snapshot, report: &StateReport) -> Vec<String> {
    let mut sentences = Vec::new();
    if let Some(expected) = expected(snapshot, report) {
        sentences.push(format!("{} {}", timer(snapshot, &expected), compared(report, &expected)));
        if expected.base_ns.abs_diff(USUAL_TIME_WAIT_NS) > expected.jiffy_ns {
            sentences.push(format!(
                "This kernel's TIME_WAIT is {}, not the usual 60 s.",
                human::duration(expected.base_ns)
            ));
        }
    } else if report.timeout.is_some() {
        sentences.push("The kernel's HZ is not known, so neither is how late its timers may be.".to_owned());
    }
    if report.ends.get(Some(End::Reused)) > 0 {
        let value = sysctl(snapshot, |sysctls| sysctls.tcp_tw_reuse)
            .map_or_else(String::new, |value| format!(", {value} here"));
        sentences.push(format!(
            "Reuse is nothing bad: connect() takes over what has rested for a second where net.ipv4.tcp_tw_reuse\
             {value}, allows it (1 everywhere, 2 on loopback), and so does a newer SYN of the peer."
        ));
    }
    if report.rearmed > 0 {
        sentences.push(format!(
            "At least {} had the timer started anew by a late segment of the peer, which lengthens {} stay.",
            human::count(report.rearmed),
            if report.rearmed == 1 { "its" } else { "their" }
        ));
    }
    sentences
}

fn timer(snapshot: &Snapshot, expected: &Expected) -> String {
    let late = human::duration(expected.latest_ns.saturating_sub(expected.base_ns));
    let hz = snapshot.meta.hz.map_or_else(String::new, |hz| format!(" at HZ {hz}"));
    format!(
        "The timer is set to {}; the kernel's timer wheel fires it up to {late} late{hz}, never early: {} to {} \
         is expected.",
        human::duration(expected.base_ns),
        human::duration(expected.base_ns),
        human::duration(expected.latest_ns)
    )
}

/// How those that the timer ended compare with what is expected of it.
fn compared(report: &StateReport, expected: &Expected) -> String {
    let Some(median) = report.ran_out.p50_ns else {
        return "None has run that long here.".to_owned();
    };
    let lies = match median {
        _ if expected.covers(median) => "lies within",
        _ if median > expected.latest_ns => "lies above",
        _ => "lies below",
    };
    let whose = if report.ran_out.count == report.finished.count { "" } else { " of those that ran out" };
    format!("The median{whose}, {}, {lies}.", human::duration(median))
}

fn orphaned(snapshot: &Snapshot, report: &StateReport) -> Vec<String> {
    let value = sysctl(snapshot, |sysctls| sysctls.tcp_fin_timeout)
        .map_or_else(String::new, |seconds| format!(", {seconds} s here"));
    let mut sentences = vec![format!(
        "The application has closed, the peer has not. net.ipv4.tcp_fin_timeout{value}, limits this \
         (TCP_LINGER2 for a single socket)."
    )];
    match (report.as_full_socket, expected(snapshot, report)) {
        (Some(part), _) => sentences.push(format!(
            "{} spent {} of it as a full socket: above 60 s the kernel waits t − 60 s twice, so that \
             tcp_fin_timeout = 61 s gives 2 s.",
            human::count(part.count),
            human::duration(part.mean_ns)
        )),
        (None, Some(expected)) => {
            sentences.push(format!("{} {}", timer(snapshot, &expected), compared(report, &expected)));
        }
        (None, None) => {}
    }
    if let (Some(timeout), Some(hz)) = (report.timeout, snapshot.meta.hz)
        && timeout.max_jiffies > timeout.min_jiffies + timeout.min_jiffies / 20 + 1
        && let (Some(shortest), Some(longest)) =
            (Expected::of(timeout.min_jiffies, hz), Expected::of(timeout.max_jiffies, hz))
    {
        sentences.push(format!(
            "Timers from {} to {} were seen: TCP_LINGER2 and slow peers (3.5 retransmission timeouts) set \
             others.",
            human::duration(shortest.base_ns),
            human::duration(longest.base_ns)
        ));
    }
    sentences
}

/// Who made the TIME_WAITs, most first.
fn makers(tally: &TimeWaitTally) -> Vec<String> {
    let at_least = if tally.owners.undercount > 0 { "at least " } else { "" };
    most(&tally.owners, tally.total)
        .map(|(process, count)| {
            let made = format!(
                "{at_least}{} of {} TIME_WAITs ({})",
                human::count(*count),
                human::count(tally.total),
                human::percent(*count, tally.total)
            );
            match process {
                Some(known) => format!(
                    "{} made {made}{}.",
                    human::process(Some(known)),
                    towards(tally, known, *count).map_or_else(String::new, |to| format!(", {to}"))
                ),
                None => format!("Which process made {made} is not known."),
            }
        })
        .collect()
}

/// Where most of a process's TIME_WAITs lead: the remote end when it is a client, its own port when it is the
/// server.
fn towards(tally: &TimeWaitTally, process: &ProcessKey, made: u64) -> Option<String> {
    let remote = tally.remotes.top.iter().find(|((owner, _), _)| owner.as_ref() == Some(process));
    let local = tally.local_ports.top.iter().find(|((owner, _), _)| owner.as_ref() == Some(process));
    let remote = remote.map(|((_, to), count)| (*count, format!("to {to}")));
    let local = local.map(|((_, port), count)| (*count, format!("on its port {port}")));
    let (count, place) = match (remote, local) {
        (Some(remote), Some(local)) if local.0 > remote.0 => local,
        (Some(remote), _) => remote,
        (None, local) => local?,
    };
    // Less than half does not describe them.
    (count * 2 >= made).then(|| match human::percent(count, made).as_str() {
        "100 %" => format!("all {place}"),
        share => format!("{share} of them {place}"),
    })
}
