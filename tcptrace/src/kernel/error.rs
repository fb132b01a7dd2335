//! Why tracing could not start, and what to do about it.

use std::io;

use super::offsets::LayoutError;
use super::privileges::Missing;
use super::symbols::SymbolError;

/// Lines of the verifier's log that an error carries: its verdict is at the end.
const LOG_LINES: usize = 20;

/// Why tracing could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The host or the process lacks something; the most fundamental first.
    #[error("{}", sentences(.0))]
    Missing(Vec<Missing>),
    /// The kernel's layout could not be learned.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The address of tw_timer_handler could not be learned.
    #[error(transparent)]
    Symbol(#[from] SymbolError),
    /// The built-in BPF object does not fit this program: a fault of the build.
    #[error("the built-in BPF object is unusable: {0}")]
    Object(String),
    /// The ring's size is not one that the kernel takes.
    #[error("a ring buffer of {0} bytes is not possible (4 KiB to 1 GiB)")]
    RingSize(u32),
    /// The kernel refused to make a map.
    #[error("the kernel refused the BPF map {map}: {source}")]
    Map {
        /// The map.
        map: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused a program without looking at it.
    #[error("the kernel refused to load BPF programs ({program}): {source}")]
    Refused {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The verifier rejected a program.
    #[error("the kernel's verifier rejected the BPF program {program}: {source}; its log ends:\n{log_end}")]
    Rejected {
        /// The program.
        program: String,
        /// The error number.
        source: io::Error,
        /// The last lines of the verifier's log.
        log_end: String,
    },
    /// The program could not be attached.
    #[error("the BPF program {program} cannot be attached to the tracepoint {tracepoint}: {source}")]
    Attach {
        /// The program.
        program: String,
        /// The tracepoint.
        tracepoint: String,
        /// Why.
        source: io::Error,
    },
    /// The ring cannot be waited for.
    #[error("the ring buffer cannot be watched: {0}")]
    Ring(io::Error),
}

impl StartError {
    /// What to do about it, where that is known.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Missing(missing) => Some(missing.iter().map(Missing::advice).collect::<Vec<_>>().join("\n")),
            Self::Layout(LayoutError::Unreadable { .. }) => Some(Missing::Btf.advice()),
            Self::Symbol(SymbolError::Hidden { .. }) => {
                Some("run as root or with CAP_SYSLOG; with kernel.kptr_restrict=2 also: sudo sysctl kernel.kptr_restrict=1".into())
            }
            Self::Map { source, .. } => match source.raw_os_error() {
                Some(libc::EPERM) => Some(
                    "raise the locked-memory limit (ulimit -l unlimited, LimitMEMLOCK=infinity) or grant CAP_SYS_RESOURCE; \
                     in a container allow the bpf system call"
                        .into(),
                ),
                Some(libc::ENOMEM) => Some("choose a smaller ring, or raise the memory limit of this cgroup".into()),
                _ => None,
            },
            Self::Refused { source, .. } => match source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => Some(
                    "run as root on the host; in a container allow the bpf system call and add CAP_BPF and CAP_PERFMON".into(),
                ),
                Some(libc::ENOSYS) => Some("use a kernel built with CONFIG_BPF_SYSCALL".into()),
                _ => None,
            },
            Self::Rejected { log_end, .. } if forbids_reading(log_end) => Some(Missing::Lockdown.advice()),
            Self::Rejected { .. } | Self::Object(_) => {
                Some("this is a defect: please report it with this message and `uname -r`".into())
            }
            Self::Attach { source, .. } if source.raw_os_error() == Some(libc::ENOENT) => {
                Some("use a kernel built with CONFIG_TRACEPOINTS and CONFIG_INET".into())
            }
            _ => None,
        }
    }
}

/// Under lockdown=confidentiality the verifier does not know the helper that reads kernel memory
/// (`bpf_tracing_func_proto()`): "unknown func bpf_probe_read_kernel#113", later "program of this type cannot
/// use helper bpf_probe_read_kernel#113".
fn forbids_reading(log: &str) -> bool {
    log.lines().any(|line| {
        line.contains("bpf_probe_read_kernel")
            && (line.contains("unknown func") || line.contains("cannot use helper"))
    })
}

fn sentences(missing: &[Missing]) -> String {
    missing.iter().map(Missing::to_string).collect::<Vec<_>>().join("; ")
}

/// The last lines of a verifier's log, where its verdict stands.
pub(super) fn log_end(log: &str) -> String {
    let lines: Vec<_> = log.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// The line of a verifier's log that says why: the last one that is not about its own work.
pub(super) fn verdict(log: &str) -> &str {
    let statistics = ["processed ", "verification time ", "stack depth "];
    let mut lines = log.lines().rev().map(str::trim);
    lines
        .find(|line| !line.is_empty() && !statistics.iter().any(|start| line.starts_with(start)))
        .unwrap_or("no reason given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_kept() {
        assert_eq!(log_end(""), "");
        assert_eq!(log_end("one\ntwo\n\n"), "one\ntwo");
        let long: String = (0..100).map(|n| format!("{n}\n")).collect();
        let end = log_end(&long);
        assert_eq!(end.lines().count(), LOG_LINES);
        assert!(end.ends_with("\n99"));
    }

    #[test]
    fn the_verdict_is_the_line_before_the_statistics() {
        let log = "0: (85) call bpf_task_pt_regs#175\nunknown func bpf_task_pt_regs#175\n\
                   verification time 12 usec\nstack depth 0\nprocessed 1 insns (limit 1000000)\n";
        assert_eq!(verdict(log), "unknown func bpf_task_pt_regs#175");
        assert_eq!(verdict(""), "no reason given");
        assert_eq!(verdict("processed 1 insns"), "no reason given");
    }

    #[test]
    fn a_refusal_by_lockdown_is_recognised_in_the_log() {
        let rejected = |log: &str| StartError::Rejected {
            program: "timer_start".into(),
            source: io::Error::from_raw_os_error(libc::EINVAL),
            log_end: log.into(),
        };
        for log in [
            "0: (b7) r1 = 0\nunknown func bpf_probe_read_kernel#113\nprocessed 3 insns",
            "program of this type cannot use helper bpf_probe_read_kernel#113\nprocessed 3 insns",
        ] {
            assert!(rejected(log).advice().unwrap().contains("lockdown"), "{log}");
        }
        assert!(rejected("R1 invalid mem access 'scalar'").advice().unwrap().contains("report"));
    }

    #[test]
    fn several_lacks_are_all_told() {
        let error = StartError::Missing(vec![Missing::Btf, Missing::Lockdown]);
        let text = error.to_string();
        assert!(text.contains("BTF") && text.contains("confidentiality"), "{text}");
        assert_eq!(error.advice().unwrap().lines().count(), 2);
    }
}
