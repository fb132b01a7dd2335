//! Giving up what is no longer needed once the programs are attached.

use std::fs;
use std::io;

use caps::{CapSet, Capability, CapsHashSet};

use super::seccomp;

/// What a confined thread may do all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    /// Open files for writing, make, rename and remove them.
    pub files: bool,
    /// Enter namespaces.
    pub namespaces: bool,
    /// `openat2()`, whose flags are behind a pointer.
    pub openat2: bool,
    /// Send signals to other processes.
    pub signals: bool,
}

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
    /// The filter of system calls was refused.
    #[error("system calls cannot be filtered: {0}")]
    Filter(io::Error),
}

/// What is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confined {
    /// Capabilities that this thread still has, in the kernel's order.
    pub kept: Vec<Capability>,
    /// Threads of this process other than the calling one: they keep what they had, because the kernel lets a
    /// thread change only its own capabilities. 0 when called in time.
    pub other_threads: usize,
    /// System calls are filtered. False where the kernel has no CONFIG_SECCOMP_FILTER, the architecture is one that the
    /// filter is not written for, or a sandbox refuses further filters.
    pub filtered: bool,
}

/// Drops every capability but those in `keep` from all sets of the calling thread and sets `no_new_privs`, so
/// that not even executing a set-user-ID program, or anything as uid 0, brings one back. Then refuses the system calls
/// that change something, but for what `allow` says: what uid 0 may do is not all given up with the capabilities.
///
/// Threads started later inherit this, those already running do not: call it before there are others.
///
/// # Errors
/// When the kernel refuses, which it does only inside a stricter sandbox. What was dropped stays dropped.
pub fn confine(keep: &CapsHashSet, allow: Allow) -> Result<Confined, ConfineError> {
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
    let filtered = seccomp::restrict(allow).map_err(ConfineError::Filter)?;
    let mut kept: Vec<_> = kept.into_iter().collect();
    kept.sort_unstable_by_key(Capability::index);
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    Ok(Confined { kept, other_threads: threads.saturating_sub(1), filtered })
}

/// Whether system calls can be filtered here, found by doing it: on a thread that ends at once.
#[must_use]
pub fn can_filter() -> bool {
    let attempt = || {
        rustix::thread::set_no_new_privs(true).is_ok()
            && seccomp::restrict(Allow::default()).is_ok_and(|filtered| filtered)
    };
    std::thread::spawn(attempt).join().unwrap_or(false)
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
            let confined = confine(&keep, Allow::default()).unwrap();
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
            // There is no way back.
            assert!(caps::raise(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).is_err());
            assert!(confined.filtered, "every kernel that tests run on has seccomp");
        })
        .join()
        .unwrap();
    }
}
