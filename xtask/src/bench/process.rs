//! What the kernel counts about a process and its threads, to the nanosecond.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;

use anyhow::{Context as _, Result};

/// What was counted of threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Time on a processor, nanoseconds (`schedstat`).
    pub cpu_ns: u64,
    /// Times that a thread waited and was woken (`voluntary_ctxt_switches`).
    pub wakeups: u64,
}

/// Each thread that a process has at a moment.
#[derive(Clone, Debug, Default)]
pub struct Counted(BTreeMap<OsString, Counts>);

impl Counted {
    /// What was added since `before`. A thread that has ended meanwhile took its counts with it.
    pub fn since(&self, before: &Self) -> Counts {
        let mut sum = Counts::default();
        for (thread, now) in &self.0 {
            let then = before.0.get(thread).copied().unwrap_or_default();
            sum.cpu_ns += now.cpu_ns.saturating_sub(then.cpu_ns);
            sum.wakeups += now.wakeups.saturating_sub(then.wakeups);
        }
        sum
    }
}

/// Counts so far of the process `pid`.
pub fn counted(pid: u32) -> Result<Counted> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("the process is gone")? {
        let task = task?;
        // A thread may end between the two.
        let (Ok(schedstat), Ok(status)) = (
            fs::read_to_string(task.path().join("schedstat")),
            fs::read_to_string(task.path().join("status")),
        ) else {
            continue;
        };
        let cpu_ns = schedstat.split(' ').next().and_then(|word| word.parse().ok());
        let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let counts = Counts {
            cpu_ns: cpu_ns.context("schedstat without a time")?,
            wakeups: switches.context("status without switches")?.trim().parse()?,
        };
        threads.insert(task.file_name(), counts);
    }
    Ok(Counted(threads))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_came_count_and_those_that_went_do_not() {
        let of = |threads: &[(&str, u64)]| {
            let counts =
                |&(name, cpu_ns): &(&str, u64)| (OsString::from(name), Counts { cpu_ns, wakeups: 1 });
            Counted(threads.iter().map(counts).collect())
        };
        let (before, after) = (of(&[("1", 100), ("2", 50)]), of(&[("1", 130), ("3", 7)]));
        assert_eq!(after.since(&before), Counts { cpu_ns: 37, wakeups: 1 });
    }
}
