//! Trying whether this kernel takes the programs, one by one: loaded, attached and let go of at once, so that
//! nothing is recorded and nothing stays.

use tcptrace_common::{Config, Filter};

use super::error::StartError;
use super::load::{self, Plan};
use super::offsets::{Layout, VMLINUX_BTF};
use super::privileges::{Host, NO_MEMLOCK};
use super::{btf, symbols};

/// A namespace that does not exist: whatever runs for the moment of the trial records nothing.
const NO_NAMESPACE: u32 = 1;

/// One hook, tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name of the program.
    pub program: &'static str,
    /// Its tracepoint.
    pub tracepoint: &'static str,
    /// Tracing goes on without it.
    pub is_optional: bool,
    /// Whether the kernel's BTF has the tracepoint; `None` where there is no BTF to ask.
    pub in_btf: Option<bool>,
    /// Whether it could be loaded and attached.
    pub outcome: Outcome,
}

/// What came of trying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Loaded and attached.
    Works,
    /// The kernel refused: why.
    Refused(String),
    /// It was not tried, because something else is missing.
    NotTried,
}

impl Outcome {
    fn of(tried: Result<(), StartError>) -> Self {
        tried.map_or_else(|error| Self::Refused(explain(&error)), |()| Self::Works)
    }
}

/// Everything that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The hooks, in the order of loading.
    pub hooks: Vec<Hook>,
    /// The programs with typed arguments, which stand in for the needed ones where the kernel takes all of them.
    pub typed: Outcome,
    /// Why not even the maps could be made, with advice; `None` where they were, or nothing was tried.
    pub obstacle: Option<(String, Option<String>)>,
    /// Bytes of the ring buffer that was made for the trial; `None` where it was not.
    pub ring_bytes: Option<u32>,
    /// Why `tw_timer_handler` is not known; `None` where it is.
    pub symbol: Option<String>,
    /// Why the kernel's layout is not known; `None` where it is.
    pub layout: Option<String>,
    /// Size of `struct tcp_timewait_sock`, bytes; `None` where BTF does not tell.
    pub mini_bytes: Option<u32>,
}

/// Tries everything that `host` allows, with a ring buffer of `ring_bytes`.
#[must_use]
pub fn probe(host: &Host, ring_bytes: u32) -> Probe {
    let bytes = std::fs::read(VMLINUX_BTF).ok();
    let types = bytes.as_deref().and_then(|bytes| btf::parse(bytes).ok());
    let layout = Layout::of_running_kernel();
    let tracepoints = layout.as_ref().ok().map(|layout| layout.tracepoints);
    let symbol = symbols::tw_timer_handler();
    let mut probe = Probe {
        hooks: Vec::new(),
        typed: Outcome::NotTried,
        obstacle: None,
        ring_bytes: None,
        symbol: symbol.as_ref().err().map(ToString::to_string),
        layout: layout.as_ref().err().map(ToString::to_string),
        mini_bytes: types.as_ref().and_then(|types| types.struct_size("tcp_timewait_sock").ok()),
    };
    // Whether symbols are shown does not matter to the verifier.
    let can_try = host.missing(false).is_empty();
    let made = layout.ok().filter(|_| can_try).map(|layout| {
        if host.older_than(NO_MEMLOCK) {
            load::lift_memlock();
        }
        let config = Config {
            tw_timer_handler: symbol.unwrap_or(0),
            wakeup_bytes: 0,
            thread_size: u64::from(layout.thread_size),
            takeover_jiffies: 0,
            offsets: layout.offsets,
            filter: Filter { netns: NO_NAMESPACE, ..Filter::ALL },
            stacks: 1,
        };
        let plan = Plan { ring_bytes, timers: true, typed: None, eof: true, stacks: true };
        load::make(&mut load::Loader::begin().ready(), load::OBJECT, &config, &plan)
    });
    let mut bpf = match made {
        Some(Ok(bpf)) => {
            probe.ring_bytes = Some(ring_bytes);
            Some(bpf)
        }
        Some(Err(error)) => {
            probe.obstacle = Some((error.to_string(), error.advice()));
            None
        }
        None => None,
    };
    if let (Some(bpf), Some(tracepoints)) = (&mut bpf, tracepoints) {
        probe.typed = Outcome::of(load::try_typed(bpf, tracepoints));
    }
    for (hook, is_optional) in load::ALL {
        let outcome = bpf.as_mut().map_or(Outcome::NotTried, |bpf| Outcome::of(load::try_out(bpf, hook)));
        probe.hooks.push(Hook {
            program: hook.program,
            tracepoint: hook.tracepoint,
            is_optional,
            in_btf: types.as_ref().map(|types| types.tracepoint(hook.tracepoint).is_some()),
            outcome,
        });
    }
    probe
}

/// In one line, with what to do where that is known.
fn explain(error: &StartError) -> String {
    let why = load::why(error);
    match error {
        StartError::Refused { .. } => error.advice().map_or(why.clone(), |advice| format!("{why}; {advice}")),
        _ => why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::privileges::Release;

    #[test]
    fn everything_that_this_kernel_takes_is_seen_to_work_and_nothing_stays() {
        let host = Host::look();
        let probe = probe(&host, 64 << 10);
        assert_eq!(probe.hooks.len(), 7);
        if !host.missing(true).is_empty() {
            eprintln!("skipped: {:?}", host.missing(true));
            assert!(probe.hooks.iter().all(|hook| hook.outcome == Outcome::NotTried));
            assert_eq!(probe.typed, Outcome::NotTried);
            return;
        }
        // What they ask for is there from 5.15 on.
        if !host.older_than(Release { major: 5, minor: 15 }) {
            assert_eq!(probe.typed, Outcome::Works);
        }
        for hook in probe.hooks.iter().filter(|hook| !hook.is_optional) {
            assert_eq!((hook.in_btf, &hook.outcome), (Some(true), &Outcome::Works), "{}", hook.program);
        }
        assert_eq!((probe.symbol, probe.layout, probe.obstacle), (None, None, None));
        assert!(probe.mini_bytes.is_some_and(|bytes| (150..1000).contains(&bytes)));
    }

    #[test]
    fn without_privileges_nothing_is_tried() {
        let host = Host { effective: caps::CapsHashSet::new(), ..Host::look() };
        let probe = probe(&host, 64 << 10);
        assert!(probe.hooks.iter().all(|hook| hook.outcome == Outcome::NotTried));
        assert_eq!(probe.typed, Outcome::NotTried);
        assert_eq!((probe.ring_bytes, probe.obstacle), (None, None));
    }
}
