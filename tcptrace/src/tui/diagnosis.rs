//! What is wrong now, in words; or that nothing is.

use crate::leaks::Leak;
use crate::net::State;
use crate::views::human;
use crate::views::leaks::{self, words};

use super::leaks::HELD_NS;
use super::ports::Outlook;
use super::text;
use super::view::View;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Fine.
    Good,
    /// Worth a look.
    Warning,
    /// Wrong.
    Alarm,
}

/// A sentence about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The sentence.
    pub text: String,
}

/// What happened within this time is happening now.
const NOW_NS: u64 = 60_000_000_000;
/// Ports that last longer than this are no matter of now.
const EXHAUSTED_SOON_S: u64 = 600;
/// Before this nothing can have lasted long.
const TOO_EARLY_NS: u64 = HELD_NS;

/// The worst first.
#[must_use]
pub fn diagnose(view: &View, clock: impl Fn(u64) -> String) -> Vec<Finding> {
    let mut findings = Vec::new();
    let alarm = |text| Finding { severity: Severity::Alarm, text };
    let groups = leaks::group(&view.leaks.leaks);
    if let Some((first, more)) = groups.split_first() {
        findings.push(alarm(leak(first, view, &clock)));
        findings.extend(others(more).map(alarm));
    }
    let recent = |total: fn(&super::trends::Sample) -> u64| {
        view.trends.growth(NOW_NS, total).map_or(0, |(grown, _)| grown)
    };
    let failures = recent(|sample| sample.connect_failures);
    if failures > 0 {
        let by = view.snapshot.connect_failures.by.top.first();
        let by = by.map_or_else(String::new, |((process, to), _)| {
            format!(", most of them by {} to {to}", human::process(process.as_ref()))
        });
        findings.push(alarm(format!(
            "connect() failed {} in the last minute for want of a local port or a route{by}",
            times(failures)
        )));
    }
    let overflows = recent(|sample| sample.overflows);
    if overflows > 0 {
        findings.push(alarm(format!(
            "{} in the last minute without TIME_WAIT: tcp_max_tw_buckets is reached",
            human::counted(overflows, "connection")
        )));
    }
    for towards in &view.time_waits.towards {
        if let Outlook::ExhaustedIn(seconds) = towards.outlook
            && seconds < EXHAUSTED_SOON_S
        {
            findings.push(alarm(format!(
                "no local port is left for {} in about {}: {} are in TIME_WAIT",
                towards.to.remote,
                human::duration(seconds.saturating_mul(1_000_000_000)),
                human::count(towards.sockets)
            )));
        }
    }
    let lost = recent(|sample| sample.lost);
    if lost > 0 {
        findings.push(Finding {
            severity: Severity::Warning,
            text: format!("{} lost in the last minute: counts are too low", human::counted(lost, "event")),
        });
    }
    if findings.is_empty() {
        findings.push(well(view));
    }
    findings
}

fn times(n: u64) -> String {
    if n == 1 { "once".to_owned() } else { format!("{} times", human::count(n)) }
}

/// `demo-leaky[77] leaks: 31 sockets in CLOSE_WAIT, the oldest since 14:03:11 (5 m 07 s), +7 a minute`.
fn leak(group: &[&Leak], view: &View, clock: &impl Fn(u64) -> String) -> String {
    let Some(leak) = group.first() else { return String::new() };
    let which = if leak.count() == 1 { "" } else { "the oldest " };
    let since = leak.oldest().map_or_else(String::new, |oldest| {
        let age = view.leak_age(oldest);
        let (shown, at) = (text::elapsed(age.ns), clock(view.now().saturating_sub(age.ns)));
        if age.is_lower_bound {
            format!(", {which}since before {at} (at least {shown})")
        } else {
            format!(", {which}since {at} ({shown})")
        }
    });
    format!(
        "{} leaks {} in CLOSE_WAIT{since}{}",
        words::who(group),
        human::counted(leak.count(), "socket"),
        leak.rate.map_or_else(String::new, |rate| format!(", {}", growth(rate.per_min)))
    )
}

/// `+7 a minute`.
#[must_use]
pub fn growth(per_min: f64) -> String {
    match per_min.round() as i64 {
        0 if per_min.abs() < 0.05 => "not growing".to_owned(),
        0 => format!("{per_min:+.1} a minute"),
        whole => format!("{whole:+} a minute"),
    }
}

fn others(groups: &[Vec<&Leak>]) -> Option<String> {
    let sockets: u64 = groups.iter().filter_map(|group| group.first()).map(|leak| leak.count()).sum();
    let (first, more) = groups.split_first()?;
    let who = match more.len() {
        0 => words::who(first),
        n => format!("{} and {} others", words::who(first), human::count(n as u64)),
    };
    let leak = if more.is_empty() && first.len() == 1 { "leaks" } else { "leak" };
    Some(format!("{who} {leak} {}, too", human::count(sockets)))
}

fn well(view: &View) -> Finding {
    let elapsed = view.snapshot.meta.elapsed_ns();
    let text = if elapsed < TOO_EARLY_NS {
        format!("nothing is wrong so far; a leak shows after {}", text::elapsed(HELD_NS))
    } else {
        match view.snapshot.open_in(State::CloseWait) {
            0 => "nothing is wrong: nobody keeps a connection that its peer has closed".to_owned(),
            n => format!(
                "nothing is wrong: {} in CLOSE_WAIT, none of them for {}",
                human::counted(n, "socket"),
                text::elapsed(HELD_NS)
            ),
        }
    };
    Finding { severity: Severity::Good, text }
}
