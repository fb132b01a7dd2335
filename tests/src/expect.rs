//! What the kernel's timer wheel allows.

use std::ops::RangeInclusive;

use anyhow::{Context as _, Result, ensure};
use tcptrace::kernel::hz::hz;
use tcptrace::wheel::Expected;

/// Time that a softirq may have to wait on a machine where every other trial runs at the same moment: ksoftirqd gets
/// no more than its share.
const SOFTIRQ_NS: u64 = 500_000_000;

/// How long a mini lives that was started with a timeout of so many seconds.
///
/// # Errors
/// Where HZ is not known.
pub fn timer_ns(seconds: u32) -> Result<RangeInclusive<u64>> {
    let hz = hz().context("HZ")?;
    let expected = Expected::of(seconds * hz, hz).context("HZ")?;
    Ok(expected.base_ns - expected.jiffy_ns..=expected.latest_ns + expected.jiffy_ns + SOFTIRQ_NS)
}

/// `value` lies in `range`, or the error says what and where.
///
/// # Errors
/// When it does not.
pub fn within(what: &str, value: u64, range: &RangeInclusive<u64>) -> Result<()> {
    ensure!(
        range.contains(&value),
        "{what}: {:.6} s is not in {:.6}..={:.6} s",
        value as f64 / 1e9,
        *range.start() as f64 / 1e9,
        *range.end() as f64 / 1e9
    );
    Ok(())
}
