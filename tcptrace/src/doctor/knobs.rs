//! The sysctls: what each is, what it really does, what is said of it, what was measured.

use super::patient::Hash;
use super::{Check, Group, Patient, Verdict};
use crate::facts::{FACTS, Fact, Preset, measured};
use crate::inventory::sysctl::{HOST_WIDE, Reading, Sysctls};
use crate::snapshot::Snapshot;
use crate::views::human;

pub(super) fn checks(patient: &Patient) -> Vec<Check> {
    FACTS.iter().map(|fact| of_patient(fact, patient)).collect()
}

fn of_patient(fact: &Fact, patient: &Patient) -> Check {
    let netns = (!fact.is_host_wide()).then_some(patient.netns);
    let mut check =
        check(fact, patient.sysctls.get(fact.name), netns, patient.hash, patient.measured.as_ref());
    let (verdict, why) = judge(fact, &patient.sysctls, check.default.as_deref());
    check.verdict = verdict;
    check.detail = format!("{why}{}", check.detail);
    if fact.short_name() == "somaxconn"
        && let Some(dropped) = patient.counter("TcpExtListenOverflows").filter(|&dropped| dropped > 0)
    {
        check.measured = Some(format!(
            "{} met a full accept queue (ListenOverflows)",
            human::counted(dropped, "handshake")
        ));
    }
    if let (Some(text), Some(then)) = (&mut check.measured, recorded_otherwise(fact, patient)) {
        *text += &format!(", at a value of {then}");
    }
    check
}

/// A sysctl as a finding, not yet judged: [`Verdict::Note`].
#[must_use]
pub fn check(
    fact: &Fact,
    reading: &Reading,
    netns: Option<u32>,
    hash: Hash,
    snapshot: Option<&Snapshot>,
) -> Check {
    Check {
        value: reading.value().map(plain),
        default: fact.default(if fact.is_host_wide() { hash.of_host } else { hash.of_namespace }),
        folklore: (!fact.folklore.is_empty()).then(|| fact.folklore.to_owned()),
        measured: snapshot.and_then(|snapshot| measured(fact.name, snapshot)),
        netns,
        ..Check::new(Group::Sysctls, fact.short_name(), Verdict::Note, fact.truth)
    }
}

/// One space between numbers.
fn plain(value: &str) -> String {
    value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// The value in the recording, or at the beginning of the trace, where it was another one.
fn recorded_otherwise(fact: &Fact, patient: &Patient) -> Option<String> {
    let values = patient.measured.as_ref()?.meta.sysctls.first()?.values.get(fact.name)?;
    let now = patient.sysctls.get(fact.name).value()?;
    (plain(values) != plain(now)).then(|| plain(values))
}

/// The verdict on a value, and a sentence on it, with a space behind.
fn judge(fact: &Fact, sysctls: &Sysctls, default: Option<&str>) -> (Verdict, String) {
    let value = match sysctls.get(fact.name) {
        Reading::Value(value) => plain(value),
        Reading::Absent if HOST_WIDE.contains(&fact.name) => {
            let why = "It is one value for the host, which only the first network namespace shows. ";
            return (Verdict::Note, why.to_owned());
        }
        Reading::Absent => return (Verdict::Ok, absent(fact)),
        Reading::Unreadable(why) => return (Verdict::Note, format!("It cannot be read: {why}. ")),
    };
    if let Some((verdict, why)) = trouble(fact, &value, sysctls) {
        return (verdict, format!("{why} "));
    }
    match fact.preset {
        // What a host computes for itself has no default to differ from.
        Preset::From(_) => (Verdict::Ok, String::new()),
        Preset::HashOver(..) if default.is_none_or(|default| default.parse::<u64>().is_err()) => {
            (Verdict::Ok, String::new())
        }
        _ if default == Some(value.as_str()) => (Verdict::Ok, String::new()),
        _ => (Verdict::Note, "Somebody has changed it. ".to_owned()),
    }
}

fn absent(fact: &Fact) -> String {
    match fact.name {
        "net.ipv4.tcp_tw_recycle" => String::new(),
        name if name.starts_with("net.netfilter.") => "No firewall remembers connections here. ".to_owned(),
        _ => "This kernel has none. ".to_owned(),
    }
}

/// Values that are likely to do what nobody wants.
fn trouble(fact: &Fact, value: &str, sysctls: &Sysctls) -> Option<(Verdict, String)> {
    let number = value.parse::<i64>().ok();
    let timestamps_off = sysctls.number("net.ipv4.tcp_timestamps") == Some(0);
    Some(match (fact.short_name(), number?) {
        ("tcp_fin_timeout", seconds @ 61..) => (
            Verdict::Warn,
            format!("Above 60 s it does not do what it says: an orphan stays {} s here.", 2 * (seconds - 60)),
        ),
        ("tcp_tw_recycle", 1..) => {
            (Verdict::Warn, "It drops connections of clients behind a NAT. To do: set it to 0.".to_owned())
        }
        ("tcp_tw_reuse", 1) if timestamps_off => {
            (Verdict::Warn, "It does nothing here, because tcp_timestamps is 0.".to_owned())
        }
        ("tcp_timestamps", 0) => (
            Verdict::Warn,
            "Switched off: tcp_tw_reuse does nothing, and wrapped sequence numbers are not told apart."
                .to_owned(),
        ),
        ("tcp_max_tw_buckets", limit) if limit < 1000 => (
            Verdict::Warn,
            "So low that TIME_WAIT is soon skipped, and with it the protection that it gives.".to_owned(),
        ),
        ("tcp_max_orphans", limit) if limit < 1000 => {
            (Verdict::Warn, "So low that connections are soon reset as they close.".to_owned())
        }
        ("tcp_rfc1337", 1) => {
            (Verdict::Note, "An RST does not end a TIME_WAIT here, which is the safer way.".to_owned())
        }
        ("tcp_syncookies", 0) => {
            (Verdict::Warn, "Switched off: SYNs beyond the backlog are dropped.".to_owned())
        }
        ("somaxconn", limit) if limit <= 128 => (
            Verdict::Note,
            "As low as it was before Linux 5.4: bursts of connections meet a full queue.".to_owned(),
        ),
        _ => return None,
    })
}
