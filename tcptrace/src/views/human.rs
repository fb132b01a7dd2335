//! Figures as people read them: durations, counts, shares, names. Shared by every view.

use std::fmt::Write as _;

use crate::snapshot::{Age, Key, ProcessKey, StateReport};

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 60 * MINUTE_S;
const DAY_S: u64 = 24 * HOUR_S;
/// Up to here seconds are easier to compare than minutes: TIME_WAITs lie around 61 s.
const SECONDS_UP_TO_S: u64 = 3 * MINUTE_S;

/// A duration to about three digits: `850 ns`, `2.42 µs`, `3.4 ms`, `61.02 s`, `5 m 07 s`, `3 h 12 m`,
/// `2 d 4 h`.
#[must_use]
pub fn duration(ns: u64) -> String {
    const US: u64 = 1_000;
    const MS: u64 = 1_000_000;
    const S: u64 = 1_000_000_000;
    // The upper limits are a little below the next unit, so that rounding never shows 1000 of one.
    match ns {
        0..US => format!("{ns} ns"),
        US..999_500 => format!("{} µs", digits(ns, US)),
        999_500..999_500_000 => format!("{} ms", digits(ns, MS)),
        _ if ns < 99_995 * MS => format!("{:.2} s", ns as f64 / S as f64),
        _ if ns < SECONDS_UP_TO_S * S => format!("{:.1} s", ns as f64 / S as f64),
        _ => long(ns / S),
    }
}

/// Three digits, without zeros that say nothing.
fn digits(ns: u64, unit_ns: u64) -> String {
    let value = ns as f64 / unit_ns as f64;
    let text = match value {
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn long(seconds: u64) -> String {
    let (unit_s, unit, part_s, part) = match seconds {
        ..HOUR_S => (MINUTE_S, "m", 1, "s"),
        HOUR_S..DAY_S => (HOUR_S, "h", MINUTE_S, "m"),
        _ => (DAY_S, "d", HOUR_S, "h"),
    };
    let (whole, rest) = (count(seconds / unit_s), seconds % unit_s / part_s);
    match rest {
        0 => format!("{whole} {unit}"),
        _ if part_s == HOUR_S => format!("{whole} {unit} {rest} {part}"),
        _ => format!("{whole} {unit} {rest:02} {part}"),
    }
}

/// A difference of durations: `+2.1 s`, `−340 ms`, `0 ns`.
#[must_use]
pub fn signed_duration(ns: i64) -> String {
    let sign = match ns {
        0 => "",
        1.. => "+",
        ..0 => "−",
    };
    format!("{sign}{}", duration(ns.unsigned_abs()))
}

/// A duration that may not be known: `?`.
#[must_use]
pub fn duration_or_unknown(ns: Option<u64>) -> String {
    ns.map_or_else(|| "?".to_owned(), duration)
}

/// An age, with `≥` where it is a lower bound.
#[must_use]
pub fn age(age: Age) -> String {
    let shown = duration(age.ns);
    if age.is_lower_bound { format!("≥ {shown}") } else { shown }
}

/// A percentile that counts open dwells: `> 2 h` where it is not reached, `-` where nothing is known.
#[must_use]
pub fn percentile(report: &StateReport, ns: Option<u64>) -> String {
    match (ns, report.survival.observed_ns) {
        (Some(ns), _) => duration(ns),
        (None, Some(observed)) => format!("> {}", duration(observed)),
        (None, None) => "-".to_owned(),
    }
}

/// A count with thousands separators: `14,203`.
#[must_use]
pub fn count(n: u64) -> String {
    let plain = n.to_string();
    let mut out = String::with_capacity(plain.len() + plain.len() / 3);
    for (index, digit) in plain.chars().enumerate() {
        if index > 0 && (plain.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count and its noun: `1 socket`, `14,203 sockets`. Adds an s; other plurals are not for this.
#[must_use]
pub fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// A share: `96 %`. Says 0 % and 100 % only when it is none and all.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "?".to_owned();
    }
    let share = part as f64 / whole as f64 * 100.0;
    match share {
        _ if part == 0 => "0 %".to_owned(),
        _ if part >= whole => "100 %".to_owned(),
        ..0.1 => "< 0.1 %".to_owned(),
        ..1.0 => format!("{share:.1} %"),
        ..99.0 => format!("{share:.0} %"),
        ..99.9 => format!("{:.1} %", (share * 10.0).floor() / 10.0),
        _ => "> 99.9 %".to_owned(),
    }
}

/// A number of bytes, decimal units: `850 B`, `3.2 KB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KB", "MB", "GB", "TB", "PB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if value < 9.95 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// A process: `nginx[812]`; `unknown process` where the owner is not known. Foreign bytes are escaped.
#[must_use]
pub fn process(process: Option<&ProcessKey>) -> String {
    let Some(process) = process else { return "unknown process".to_owned() };
    let on = process.host.map_or_else(String::new, |host| format!(" on {host}"));
    format!("{}[{}]{on}", process.comm, process.pid)
}

/// What a keyed report is about. Foreign bytes are escaped.
#[must_use]
pub fn key(key: &Key) -> String {
    match key {
        Key::Process(process) => self::process(process.as_ref()),
        Key::Port(port) => format!("port {port}"),
        Key::Peer(addr) => addr.to_string(),
        Key::Netns(netns) => format!("netns {netns}"),
        Key::Container(Some(container)) => crate::text::escape(container.as_bytes()).into_owned(),
        Key::Container(None) => "unknown".to_owned(),
        Key::Other(_) => "all others".to_owned(),
    }
}

/// Whose a keyed report is: `nginx[812] on web-1`, `web-1`. Foreign bytes are escaped.
#[must_use]
pub fn whose(report: &StateReport) -> String {
    match (&report.key, report.host) {
        (Some(key), Some(host)) => format!("{} on {host}", self::key(key)),
        (Some(key), None) => self::key(key),
        (None, Some(host)) => host.to_string(),
        (None, None) => "all".to_owned(),
    }
}

/// `a`, `a and b`, `a, b and c`.
#[must_use]
pub fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [init @ .., last] => {
            let mut out = init.join(", ");
            // Writing to a String cannot fail.
            let _ = write!(out, " and {last}");
            out
        }
    }
}

/// The same in ASCII, for terminals and logs that show nothing else. The comparison signs grow by a character:
/// convert before laying out.
#[must_use]
pub fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            'µ' => out.push('u'),
            '≥' => out.push_str(">="),
            '≤' => out.push_str("<="),
            '–' | '−' | '─' => out.push('-'),
            '→' => out.push_str("->"),
            '·' => out.push('-'),
            '×' => out.push('x'),
            '…' => out.push_str("..."),
            c if c.is_ascii() => out.push(c),
            c => out.extend(c.escape_unicode()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (ns, shown) in [
            (0, "0 ns"),
            (850, "850 ns"),
            (2_424, "2.42 µs"),
            (999_499, "999 µs"),
            (999_500, "1 ms"),
            (3_400_000, "3.4 ms"),
            (342_000_000, "342 ms"),
            (999_499_999, "999 ms"),
            (999_999_999, "1.00 s"),
            (5_012_000_000, "5.01 s"),
            (61_020_000_000, "61.02 s"),
            (99_994_000_000, "99.99 s"),
            (179_900_000_000, "179.9 s"),
            (900_000_000_000, "15 m"),
            (307_000_000_000, "5 m 07 s"),
            (11_520_000_000_000, "3 h 12 m"),
            (187_200_000_000_000, "2 d 4 h"),
            (u64::MAX, "213,503 d 23 h"),
        ] {
            assert_eq!(duration(ns), shown);
        }
    }

    #[test]
    fn counts_and_shares() {
        assert_eq!(
            [0, 999, 1000, 14_203, 1_234_567].map(count),
            ["0", "999", "1,000", "14,203", "1,234,567"]
        );
        assert_eq!(counted(1, "socket"), "1 socket");
        let shares = [(0, 9), (9, 9), (1, 2000), (1, 200), (96, 100), (1999, 2000), (995, 1000), (1, 0)];
        assert_eq!(
            shares.map(|(part, whole)| percent(part, whole)),
            ["0 %", "100 %", "< 0.1 %", "0.5 %", "96 %", "> 99.9 %", "99.5 %", "?"]
        );
        assert_eq!([1, 3_200, 12_000_000].map(bytes), ["1 B", "3.2 KB", "12 MB"]);
    }

    #[test]
    fn ascii_leaves_nothing_else() {
        assert_eq!(ascii("≥ 2.4 µs – FIN_WAIT2→CLOSE…"), ">= 2.4 us - FIN_WAIT2->CLOSE...");
        assert!(ascii("größe █").is_ascii());
    }
}
