//! What the exporter itself takes, by the names that every Prometheus client uses.

use std::fs;

use super::family::Family;

/// Figures of this process. What cannot be read is left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own {
    cpu_s: Option<f64>,
    resident_bytes: Option<f64>,
    start_s: Option<f64>,
}

impl Own {
    /// Reads /proc/self.
    #[must_use]
    pub fn read() -> Self {
        let Ok(stat) = fs::read_to_string("/proc/self/stat") else { return Self::default() };
        let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
        // The task name, in parentheses, may hold anything. Behind it comes field 3.
        let fields: Vec<&str> =
            stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
        let number = |field: usize| fields.get(field - 3).and_then(|text| text.trim().parse::<f64>().ok());
        let (user, system) = (number(14), number(15));
        Self {
            cpu_s: user.zip(system).map(|(user, system)| (user + system) / ticks_per_s),
            resident_bytes: number(24).map(|pages| pages * rustix::param::page_size() as f64),
            start_s: number(22).zip(boot_s()).map(|(ticks, boot)| boot + ticks / ticks_per_s),
        }
    }

    /// As metrics.
    #[must_use]
    pub fn families<'a>(&self) -> Vec<Family<'a>> {
        let cpu = Family::counter("process_cpu_seconds", "CPU time of the exporter.").unit("seconds");
        let resident =
            Family::gauge("process_resident_memory_bytes", "Resident memory of the exporter.").unit("bytes");
        let start = Family::gauge(
            "process_start_time_seconds",
            "When the exporter was started, since the Unix epoch.",
        )
        .unit("seconds");
        [(cpu, self.cpu_s), (resident, self.resident_bytes), (start, self.start_s)]
            .into_iter()
            .filter_map(|(family, value)| Some(family.single(value?)))
            .collect()
    }
}

/// When the system was booted, seconds since the Unix epoch.
fn boot_s() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_figures_are_plausible() {
        let own = Own::read();
        assert!(own.resident_bytes.is_some_and(|bytes| bytes > 1e6));
        assert!(own.cpu_s.is_some());
        assert!(own.start_s.is_some_and(|start| start > 1.6e9));
    }
}
