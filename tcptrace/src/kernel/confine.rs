//! Giving up what is no longer needed once the programs are attached.

use std::fs;
use std::io;

use caps::{CapSet, Capability, CapsHashSet};

/// Why privileges could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// A capability set could not be read or changed.
    #[error("the {set:?} capabilities cannot be changed: {source}")]
    Capabilities {
        /// Which set.
        set: CapSet,
        /// Why.
        source: caps::errors::CapsError,
    },
    /// `prctl(PR_SET_NO_NEW_PRIVS)` failed.
    #[error("no_new_privs cannot be set: {0}")]
    NoNewPrivs(io::Error),
}

/// What is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confined {
    /// Capabilities that this thread still has, in the kernel's order.
    pub kept: Vec<Capability>,
    /// Threads of this process other than the calling one: they keep what they had, because the kernel lets a
    /// thread change only its own capabilities. 0 when called in time.
    pub other_threads: usize,
}

/// Drops every capability but those in `keep` from all sets of the calling thread and sets `no_new_privs`, so
/// that not even executing a set-user-ID program, or anything as uid 0, brings one back.
///
/// Threads started later inherit this, those already running do not: call it before there are others.
///
/// # Errors
/// When the kernel refuses, which it does only inside a stricter sandbox. What was dropped stays dropped.
pub fn confine(keep: &CapsHashSet) -> Result<Confined, ConfineError> {
    let failed = |set| move |source| ConfineError::Capabilities { set, source };
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed(CapSet::Permitted))?;
    let kept: CapsHashSet = permitted.intersection(keep).copied().collect();
    // The bounding set first: shrinking it takes CAP_SETPCAP, which is about to go. Without that capability
    // it stays, and `no_new_privs` alone keeps execve() from drawing on it.
    for capability in caps::all() {
        if !kept.contains(&capability) {
            let _ = caps::drop(None, CapSet::Bounding, capability);
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(failed(CapSet::Ambient))?;
    caps::clear(None, CapSet::Inheritable).map_err(failed(CapSet::Inheritable))?;
    caps::set(None, CapSet::Effective, &kept).map_err(failed(CapSet::Effective))?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed(CapSet::Permitted))?;
    rustix::thread::set_no_new_privs(true).map_err(|error| ConfineError::NoNewPrivs(error.into()))?;
    let mut kept: Vec<_> = kept.into_iter().collect();
    kept.sort_unstable_by_key(Capability::index);
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    Ok(Confined { kept, other_threads: threads.saturating_sub(1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Capabilities belong to a thread, so a thread of its own can give them up without harm to other tests.
    #[test]
    fn everything_but_what_is_kept_is_gone_for_good() {
        std::thread::spawn(|| {
            let before = caps::read(None, CapSet::Permitted).unwrap();
            let keep = CapsHashSet::from([Capability::CAP_SYS_PTRACE]);
            let confined = confine(&keep).unwrap();
            let expected: Vec<_> = before.intersection(&keep).copied().collect();
            assert_eq!(confined.kept, expected);
            assert!(confined.other_threads >= 1, "the test harness has threads");
            for set in [CapSet::Effective, CapSet::Permitted] {
                assert_eq!(caps::read(None, set).unwrap().into_iter().collect::<Vec<_>>(), expected);
            }
            for set in [CapSet::Inheritable, CapSet::Ambient] {
                assert!(caps::read(None, set).unwrap().is_empty());
            }
            assert!(rustix::thread::no_new_privs().unwrap());
            // Taking one back, or executing as uid 0, must not help.
            assert!(caps::raise(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).is_err());
            let status =
                std::process::Command::new("grep").args(["^CapEff", "/proc/self/status"]).output().unwrap();
            let text = String::from_utf8_lossy(&status.stdout).into_owned();
            let bits = u64::from_str_radix(text.split_whitespace().nth(1).unwrap(), 16).unwrap();
            assert_eq!(bits & !Capability::CAP_SYS_PTRACE.bitmask(), 0, "{text}");
        })
        .join()
        .unwrap();
    }
}
