//! Durations as options take them and messages print them: `10s`, `2m`, `1h30m`, `500ms`.
//!
//! Stricter than the crates for it: no bare numbers, no words, no unit twice or out of order, because a
//! duration that was meant otherwise costs the user the whole measurement.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Units from long to short, with their length in nanoseconds.
const UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not of the form number, unit, number, unit, …
    #[error("not a duration; write it as 10s, 2m, 1h30m or 500ms")]
    Syntax,
    /// A number and nothing else.
    #[error("has no unit; write {0}s for seconds, {0}m for minutes or {0}ms for milliseconds")]
    NoUnit(String),
    /// A decimal point.
    #[error("whole numbers only; write 1s500ms for 1.5s")]
    Fraction,
    /// A unit that is none.
    #[error("unknown unit {0:?}; known are d, h, m, s, ms, us, ns")]
    Unit(String),
    /// 1s2m, 1m2m.
    #[error("units must go from long to short, each once, as in 1h30m")]
    Order,
    /// Outside of what the option takes.
    #[error("out of range; give {} to {}", exact(*.0.start()), exact(*.0.end()))]
    Range(RangeInclusive<Duration>),
}

/// Parses a duration that must lie in `range`.
pub fn parse_in(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, Error> {
    let Some(ns) = parse_ns(text)? else { return Err(Error::Range(range)) };
    let secs = u64::try_from(ns / 1_000_000_000).ok();
    // The remainder is below 10^9.
    let duration = secs.map(|secs| Duration::new(secs, (ns % 1_000_000_000) as u32));
    match duration {
        Some(duration) if range.contains(&duration) => Ok(duration),
        _ => Err(Error::Range(range)),
    }
}

/// Nanoseconds; `None` when they overflow.
fn parse_ns(text: &str) -> Result<Option<u128>, Error> {
    if text.is_empty() {
        return Err(Error::Syntax);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::NoUnit(text.to_owned()));
    }
    let mut total = Some(0_u128);
    let mut units = UNITS.iter();
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        if digits == 0 {
            return Err(Error::Syntax);
        }
        if after.starts_with(['.', ',']) {
            return Err(Error::Fraction);
        }
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        if letters == 0 {
            return Err(Error::Syntax);
        }
        if !UNITS.iter().any(|(name, _)| *name == unit) {
            return Err(Error::Unit(unit.to_owned()));
        }
        // Each unit uses up the longer ones before it, and itself.
        let (_, unit_ns) = units.find(|(name, _)| *name == unit).ok_or(Error::Order)?;
        let ns = number.parse::<u128>().ok().and_then(|number| number.checked_mul(*unit_ns));
        total = total.zip(ns).and_then(|(total, ns)| total.checked_add(ns));
        rest = after;
    }
    Ok(total)
}

/// Prints a duration exactly, as [`parse_in`] takes it.
#[must_use]
pub fn exact(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, unit_ns) in UNITS {
        let count = rest / unit_ns;
        rest %= unit_ns;
        if count != 0 {
            // Writing to a String cannot fail.
            let _ = write!(out, "{count}{unit}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Duration, Error> {
        parse_in(text, Duration::ZERO..=Duration::from_secs(365 * 86_400))
    }

    #[test]
    fn takes_what_people_write() {
        for (text, ms) in [
            ("10s", 10_000),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1d", 86_400_000),
            ("1m1ms", 60_001),
            ("90m", 5_400_000),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse("7us9ns"), Ok(Duration::from_nanos(7_009)));
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(parse(""), Err(Error::Syntax));
        assert_eq!(parse("s"), Err(Error::Syntax));
        assert_eq!(parse("-5s"), Err(Error::Syntax));
        assert_eq!(parse("5 s"), Err(Error::Syntax));
        assert_eq!(parse("10s5"), Err(Error::Syntax));
        assert_eq!(parse("10"), Err(Error::NoUnit("10".into())));
        assert_eq!(parse("1.5s"), Err(Error::Fraction));
        assert_eq!(parse("5sec"), Err(Error::Unit("sec".into())));
        assert_eq!(parse("5S"), Err(Error::Unit("S".into())));
        assert_eq!(parse("5s1m"), Err(Error::Order));
        assert_eq!(parse("5s5s"), Err(Error::Order));
        assert!(matches!(parse("366d"), Err(Error::Range(_))));
        assert!(matches!(parse("99999999999999999999999999999999999999999d"), Err(Error::Range(_))));
        assert!(matches!(parse("340282366920938463463374607431768211455d"), Err(Error::Range(_))));
        assert_eq!(
            parse_in("1s", Duration::from_secs(2)..=Duration::from_secs(90)).unwrap_err().to_string(),
            "out of range; give 2s to 1m30s"
        );
    }

    proptest::proptest! {
        #[test]
        fn what_is_printed_is_taken_back(ns in 0..=31_536_000_000_000_000_u64) {
            let duration = Duration::from_nanos(ns);
            assert_eq!(parse(&exact(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "[0-9dhmsun., -]{0,50}") {
            let _ = parse(&text);
        }
    }
}
