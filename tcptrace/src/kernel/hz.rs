//! HZ: how many jiffies a second has, needed to turn a timer's jiffies into time.

use rustix::thread::ClockId;
use rustix::time::clock_getres;

/// That of Alpha.
const GREATEST_HZ: u32 = 1200;

/// HZ of the running kernel, exact and without privileges; `None` where the answer makes no sense.
///
/// The resolution of the coarse clocks is one tick, `TICK_NSEC = (NSEC_PER_SEC + HZ/2) / HZ`
/// (`posix_get_coarse_res()`, `include/linux/jiffies.h`). The better known CONFIG_HZ of /proc/config.gz is not
/// there on many kernels, and `sysconf(_SC_CLK_TCK)` is USER_HZ, always 100.
#[must_use]
pub fn hz() -> Option<u32> {
    let tick = clock_getres(ClockId::MonotonicCoarse);
    let tick_ns = u64::try_from(tick.tv_sec)
        .ok()?
        .checked_mul(1_000_000_000)?
        .checked_add(u64::try_from(tick.tv_nsec).ok()?)?;
    hz_of_tick(tick_ns)
}

/// So many seconds in jiffies of the running kernel; more, where its HZ is not known.
#[must_use]
pub fn jiffies(seconds: u64) -> u64 {
    seconds * u64::from(hz().unwrap_or(GREATEST_HZ))
}

/// Kernels are built with HZ from 24 (MIPS) to 1200 (Alpha); anything else is not a tick.
fn hz_of_tick(tick_ns: u64) -> Option<u32> {
    let hz = (1_000_000_000 + tick_ns / 2).checked_div(tick_ns)?;
    u32::try_from(hz).ok().filter(|hz| (24..=GREATEST_HZ).contains(hz))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hz_of_kconfig_is_found_from_its_tick() {
        for hz in [24, 48, 100, 128, 250, 256, 300, 1000, 1024, 1200] {
            let tick_ns = (1_000_000_000 + hz / 2) / hz;
            assert_eq!(hz_of_tick(tick_ns), u32::try_from(hz).ok(), "tick of {tick_ns} ns");
        }
    }

    #[test]
    fn a_resolution_that_is_no_tick_is_unknown() {
        assert_eq!(hz_of_tick(0), None);
        assert_eq!(hz_of_tick(1), None);
        assert_eq!(hz_of_tick(u64::MAX / 2), None);
    }

    #[test]
    fn the_running_kernel_answers_and_agrees_with_its_configuration() {
        let hz = hz().expect("coarse clocks exist since 2.6.32");
        let release = rustix::system::uname();
        let path = format!("/boot/config-{}", release.release().to_string_lossy());
        if let Ok(config) = std::fs::read_to_string(path) {
            assert!(config.lines().any(|line| line == format!("CONFIG_HZ={hz}")));
        }
    }
}
