//! What this host and this process lack for tracing, found before anything is tried, and what is given up
//! once it runs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use caps::{CapSet, Capability, CapsHashSet};

use super::offsets::VMLINUX_BTF;

/// The oldest kernel with the BPF ring buffer and with CAP_BPF and CAP_PERFMON.
pub const OLDEST_KERNEL: Release = Release { major: 5, minor: 8 };
/// From here on reading a map by its descriptor needs no capability, whatever
/// `kernel.unprivileged_bpf_disabled` says (`__sys_bpf()`).
const MAPS_NEED_NO_CAPABILITY: Release = Release { major: 5, minor: 19 };
/// From here on BPF memory is charged to the cgroup instead of RLIMIT_MEMLOCK.
pub(crate) const NO_MEMLOCK: Release = Release { major: 5, minor: 11 };
/// `PROC_USER_INIT_INO`: inode of the initial user namespace.
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// The part of a kernel's release that features depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// `6` of `6.1.0-13-amd64`.
    pub major: u16,
    /// `1` of `6.1.0-13-amd64`.
    pub minor: u16,
}

impl Release {
    /// Takes the numbers from the beginning of `uname -r`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some(Self { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()? })
    }
}

/// Mode of the lockdown security module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// Nothing is refused.
    None,
    /// Changing the kernel is refused; reading it is allowed.
    Integrity,
    /// Reading kernel memory is refused, to BPF too.
    Confidentiality,
}

impl Lockdown {
    /// Takes the word in brackets of `none [integrity] confidentiality`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('[')?.1.split_once(']')?.0 {
            "none" => Some(Self::None),
            "integrity" => Some(Self::Integrity),
            "confidentiality" => Some(Self::Confidentiality),
            _ => None,
        }
    }
}

/// Something that tracing cannot do without.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The kernel has no BPF ring buffer.
    #[error("kernel {0} is too old: the BPF ring buffer came with 5.8")]
    KernelTooOld(String),
    /// The kernel does not publish its types.
    #[error("the kernel has no {VMLINUX_BTF} (CONFIG_DEBUG_INFO_BTF)")]
    Btf,
    /// BPF programs may not read kernel memory.
    #[error("the kernel is locked down to confidentiality: BPF may not read kernel memory")]
    Lockdown,
    /// Capabilities in any other user namespace than the first count for nothing here.
    #[error("running in a user namespace of its own, where capabilities do not reach the kernel's BPF")]
    UserNamespace,
    /// Capabilities are not there.
    #[error("missing {}", names(.0))]
    Capabilities(Vec<Capability>),
    /// The kernel hides its addresses from everyone.
    #[error("kernel.kptr_restrict is 2: the address of tw_timer_handler is hidden even from root")]
    KptrRestrict,
}

impl Missing {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::KernelTooOld(_) => "use a kernel of 5.8 or newer; `tcptrace states` and `tcptrace leaks` without tracing work on any".into(),
            Self::Btf => "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y (all current distributions are), and mount /sys".into(),
            Self::Lockdown => "boot with `lockdown=integrity` (or Secure Boot's default of the distribution) instead of `lockdown=confidentiality`".into(),
            Self::UserNamespace => "run in the host's user namespace: as root outside, or a container without user namespace remapping".into(),
            // The whole set, because setcap replaces what a file has.
            Self::Capabilities(_) => "run with sudo, or once: sudo setcap cap_bpf,cap_perfmon,cap_syslog+ep $(command -v tcptrace); \
                in a container add these capabilities to it"
                .into(),
            Self::KptrRestrict => "sudo sysctl kernel.kptr_restrict=1".into(),
        }
    }
}

fn names(list: &[Capability]) -> String {
    let mut out = String::new();
    for (index, capability) in list.iter().enumerate() {
        let between = match (index, list.len()) {
            (0, _) => "",
            (last, len) if last + 1 == len => " and ",
            _ => ", ",
        };
        // Writing to a String cannot fail.
        let _ = write!(out, "{between}{capability}");
    }
    out
}

/// What the present host and process are like, as far as tracing depends on it. Plain data, so that every
/// judgement below can be tested without such a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// `uname -r`.
    pub release: String,
    /// Effective capabilities of this thread.
    pub effective: CapsHashSet,
    /// Inside the first user namespace; `None` where /proc does not tell.
    pub initial_user_namespace: Option<bool>,
    /// Lockdown; `None` where the module is absent or securityfs is not mounted.
    pub lockdown: Option<Lockdown>,
    /// The kernel publishes its BTF.
    pub has_btf: bool,
    /// `kernel.kptr_restrict`: 0 to 2.
    pub kptr_restrict: Option<i64>,
    /// `kernel.perf_event_paranoid`: −1 to 4; at 1 and below kallsyms is open to all when kptr_restrict is 0.
    pub perf_event_paranoid: Option<i64>,
    /// `kernel.unprivileged_bpf_disabled`: 0 to 2.
    pub unprivileged_bpf_disabled: Option<i64>,
}

impl Host {
    /// Looks.
    #[must_use]
    pub fn look() -> Self {
        let sysctl =
            |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse().ok();
        Self {
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            // Without an answer nothing is claimed to be there; the kernel has the last word anyway.
            effective: caps::read(None, CapSet::Effective).unwrap_or_default(),
            initial_user_namespace: rustix::fs::stat("/proc/self/ns/user")
                .ok()
                .map(|stat| stat.st_ino == INITIAL_USER_NAMESPACE),
            lockdown: fs::read_to_string("/sys/kernel/security/lockdown")
                .ok()
                .as_deref()
                .and_then(Lockdown::parse),
            has_btf: Path::new(VMLINUX_BTF).exists(),
            kptr_restrict: sysctl("kptr_restrict"),
            perf_event_paranoid: sysctl("perf_event_paranoid"),
            unprivileged_bpf_disabled: sysctl("unprivileged_bpf_disabled"),
        }
    }

    /// Everything that is missing, the most fundamental first. `timers` says whether minis are traced, which
    /// takes the address of a kernel function.
    #[must_use]
    pub fn missing(&self, timers: bool) -> Vec<Missing> {
        let mut missing = Vec::new();
        if self.older_than(OLDEST_KERNEL) {
            missing.push(Missing::KernelTooOld(self.release.clone()));
        }
        if !self.has_btf {
            missing.push(Missing::Btf);
        }
        if self.lockdown == Some(Lockdown::Confidentiality) {
            missing.push(Missing::Lockdown);
        }
        if self.initial_user_namespace == Some(false) {
            missing.push(Missing::UserNamespace);
        }
        let mut capabilities = Vec::new();
        // bpf_capable() and perfmon_capable() accept CAP_SYS_ADMIN in their place.
        if !self.effective.contains(&Capability::CAP_SYS_ADMIN) {
            let needed = [Capability::CAP_BPF, Capability::CAP_PERFMON];
            capabilities.extend(needed.into_iter().filter(|needed| !self.effective.contains(needed)));
        }
        if timers {
            match self.symbols() {
                Symbols::Shown => {}
                Symbols::NeedSyslog => capabilities.push(Capability::CAP_SYSLOG),
                Symbols::HiddenFromAll => missing.push(Missing::KptrRestrict),
            }
        }
        if !capabilities.is_empty() {
            missing.push(Missing::Capabilities(capabilities));
        }
        missing
    }

    /// True when this release is known to be older.
    pub(crate) fn older_than(&self, than: Release) -> bool {
        Release::parse(&self.release).is_some_and(|release| release < than)
    }

    /// `kallsyms_show_value()`. CAP_SYS_ADMIN does not stand in for CAP_SYSLOG there.
    fn symbols(&self) -> Symbols {
        let syslog = self.effective.contains(&Capability::CAP_SYSLOG);
        match self.kptr_restrict {
            Some(0) if self.perf_event_paranoid.is_some_and(|level| level <= 1) => Symbols::Shown,
            Some(2..) => Symbols::HiddenFromAll,
            _ if syslog => Symbols::Shown,
            _ => Symbols::NeedSyslog,
        }
    }

    /// Capabilities that the running tracer itself cannot do without once its programs are attached: usually
    /// none. Older kernels refuse every bpf(2) call, reading the loss counters included, unless the caller
    /// is privileged or unprivileged BPF is allowed.
    #[must_use]
    pub fn needed_while_tracing(&self) -> CapsHashSet {
        let refused = self.unprivileged_bpf_disabled != Some(0) && self.older_than(MAPS_NEED_NO_CAPABILITY);
        let bpf = [Capability::CAP_BPF, Capability::CAP_SYS_ADMIN];
        let held = bpf.into_iter().find(|capability| self.effective.contains(capability));
        held.filter(|_| refused).into_iter().collect()
    }
}

/// Capabilities with which sockets of other network namespaces are dumped (`setns()`: CAP_SYS_ADMIN) and their
/// holders found among other users' processes (/proc/PID/ns and /proc/PID/fd: CAP_SYS_PTRACE, and
/// CAP_DAC_READ_SEARCH to enter the directory), and with which `sock_diag` tells a subflow of MPTCP from plain
/// TCP (CAP_NET_ADMIN). Without them an inventory sees less and says so.
#[must_use]
pub fn needed_for_inventory() -> CapsHashSet {
    [
        Capability::CAP_SYS_ADMIN,
        Capability::CAP_SYS_PTRACE,
        Capability::CAP_DAC_READ_SEARCH,
        Capability::CAP_NET_ADMIN,
    ]
    .into()
}

/// Whether /proc/kallsyms shows addresses.
enum Symbols {
    Shown,
    NeedSyslog,
    HiddenFromAll,
}

#[cfg(test)]
#[path = "privileges_tests.rs"]
mod tests;
