//! Loads the BPF object: constants, maps, programs one by one, links.

use std::io;
use std::os::fd::AsFd as _;
use std::thread::JoinHandle;

use aya::maps::{Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::{BtfTracePoint, ProgramError, RawTracePoint};
use aya::{Ebpf, EbpfError, EbpfLoader};
use aya_log::EbpfLogger;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tcptrace_common::Config;

use super::error::{StartError, log_end, verdict};
use super::tracepoints::Tracepoints;
use super::word::SharedWord;

/// The compiled programs, committed beside their source.
pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!("../../../tcptrace-ebpf/prebuilt/tcptrace.bpf.o");

/// A ring that is not wanted still has to exist, because the programs of the object name it.
const UNUSED_RING_BYTES: u32 = 4096;
/// Bytes of the stack ring: 220 stacks of 36 KiB. Stacks are taken once per leaking call, so they are rare; when
/// they are not, the first ones are as good as the last.
const STACK_RING_BYTES: u32 = 8 << 20;
/// The kernel takes rings up to 2 GiB on 64 bits (`RINGBUF_MAX_DATA_SZ`), but they are mapped twice in a row and
/// paid for in whole: beyond this a typing error is likelier than a wish.
const RING_BYTES: std::ops::RangeInclusive<u32> = 4096..=1 << 30;

/// A program and the tracepoint that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hook {
    pub program: &'static str,
    pub tracepoint: &'static str,
}

/// Transitions of full sockets.
const STATE: Hook = Hook { program: "inet_sock_set_state", tracepoint: "inet_sock_set_state" };
/// Minis, as their timer shows them.
const TIMERS: [Hook; 3] = [
    Hook { program: "timer_start", tracepoint: "timer_start" },
    Hook { program: "timer_cancel", tracepoint: "timer_cancel" },
    Hook { program: "timer_expire_entry", tracepoint: "timer_expire_entry" },
];
/// [`TIMERS`] and [`STATE`] with arguments whose types the verifier knows, so that members are loaded instead of
/// asked for: a fraction of the cost. Takes 5.15, for `bpf_task_pt_regs`.
const TYPED: [Hook; 4] = [
    Hook { program: "typed_timer_start", tracepoint: "timer_start" },
    Hook { program: "typed_timer_cancel", tracepoint: "timer_cancel" },
    Hook { program: "typed_timer_expire", tracepoint: "timer_expire_entry" },
    Hook { program: "typed_set_state", tracepoint: "inet_sock_set_state" },
];
/// End of file told to an application; the tracepoint is absent in 6.2 and present in 6.5.
const EOF: Hook = Hook { program: "sock_recv_length", tracepoint: "sock_recv_length" };
/// The same with the stack, for which `bpf_task_pt_regs` is needed (5.15).
const EOF_STACK: Hook = Hook { program: "sock_recv_length_stack", tracepoint: "sock_recv_length" };
/// The stack of a connect(). Runs after [`STATE`] on the same tracepoint.
const CONNECT_STACK: Hook = Hook { program: CONNECT_STACK_NAME, tracepoint: "inet_sock_set_state" };
/// The stacks of sends, which name the code where a runtime reads the end of file itself.
const SEND_STACK: Hook = Hook { program: SEND_STACK_NAME, tracepoint: "sock_send_length" };
/// It records no event.
pub(super) const SEND_STACK_NAME: &str = "sock_send_length_stack";
/// It records no event.
pub(super) const CONNECT_STACK_NAME: &str = "connect_stack";

/// Every hook there is, with whether tracing can do without it, in the order of loading.
pub(super) const ALL: [(Hook, bool); 7] = [
    (STATE, false),
    (TIMERS[0], false),
    (TIMERS[1], false),
    (TIMERS[2], false),
    (EOF, true),
    (EOF_STACK, true),
    (CONNECT_STACK, true),
];

/// What is to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Bytes of the event ring; rounded up to a power of two of pages.
    pub ring_bytes: u32,
    /// Trace minis.
    pub timers: bool,
    /// Use programs at typed tracepoints, of which these are the ids, where the kernel takes them.
    pub typed: Option<Tracepoints>,
    /// Trace end of file.
    pub eof: bool,
    /// Take stacks.
    pub stacks: bool,
}

/// A program that this kernel does not take. What it would have told is missing from the output, nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedHook {
    /// Name of the program.
    pub name: &'static str,
    /// Why, in words.
    pub why: String,
}

/// Loaded and attached.
pub(super) struct Loaded {
    /// Keeps programs, links and the remaining maps alive.
    pub bpf: Ebpf,
    pub events: RingBuf<MapData>,
    pub stacks: Option<RingBuf<MapData>>,
    pub counters: PerCpuArray<MapData, u64>,
    pub lost_transitions: PerCpuArray<MapData, u64>,
    pub reader_knows: SharedWord,
    /// Rare conditions that the programs report in words.
    pub log: Option<EbpfLogger<&'static dyn log::Log>>,
    /// Names of the attached programs, in the order of attaching.
    pub programs: Vec<&'static str>,
    pub skipped: Vec<SkippedHook>,
}

/// aya's loader, which begins by reading all the kernel's types, whether it is asked to use them or not: on a thread of
/// its own, while this one learns what the programs must know.
pub(super) struct Loader(Option<JoinHandle<EbpfLoader<'static>>>);

impl Loader {
    /// Begins to make it.
    pub fn begin() -> Self {
        Self(std::thread::Builder::new().name("loader".to_owned()).spawn(Self::make).ok())
    }

    /// Waits for it, or makes it here where no thread was to be had.
    pub fn ready(self) -> EbpfLoader<'static> {
        self.0.and_then(|thread| thread.join().ok()).unwrap_or_else(Self::make)
    }

    fn make() -> EbpfLoader<'static> {
        let mut loader = EbpfLoader::new();
        // There are no CO-RE relocations: offsets arrive in CONFIG.
        loader.btf(None);
        loader
    }
}

/// Reads `object`, sets its constants and makes its maps; loads no program.
pub(super) fn make<'a>(
    loader: &mut EbpfLoader<'a>,
    object: &[u8],
    config: &'a Config,
    plan: &Plan,
) -> Result<Ebpf, StartError> {
    if !RING_BYTES.contains(&plan.ring_bytes) {
        return Err(StartError::RingSize(plan.ring_bytes));
    }
    let mut make = |object: &[u8]| {
        loader
            .override_global("CONFIG", config, true)
            .map_max_entries("EVENTS", plan.ring_bytes)
            .map_max_entries("STACKS", if plan.stacks { STACK_RING_BYTES } else { UNUSED_RING_BYTES })
            .load(object)
    };
    let bpf = match make(object) {
        // The kernel does not take the object's own types, without which aya gives up for the sake of the typed
        // programs. The plain ones do without.
        Err(EbpfError::BtfError(_)) => make(&without_types(object)),
        result => result,
    };
    give_back_memory();
    bpf.map_err(object_error)
}

/// The object with the sections of its own types under names that nobody looks for.
fn without_types(object: &[u8]) -> Vec<u8> {
    // They may be stored as the ends of longer names.
    const NAMES: [&[u8]; 2] = [b".BTF\0", b".BTF.ext\0"];
    let mut bytes = object.to_vec();
    for name in NAMES {
        let places = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(name)).collect::<Vec<_>>();
        for at in places {
            bytes[at] = b'-';
        }
    }
    bytes
}

/// Loads `object` with `config` as its constants and attaches what `plan` asks for.
pub(super) fn load<'a>(
    loader: &mut EbpfLoader<'a>,
    object: &[u8],
    config: &'a Config,
    plan: &Plan,
) -> Result<Loaded, StartError> {
    let mut bpf = make(loader, object, config, plan)?;
    let mut programs = Vec::new();
    let mut skipped = Vec::new();
    // All are loaded before the first is attached, so that events begin at nearly the same moment for all;
    // minis before states, so that no socket is seen to close whose mini is not.
    let typed = if plan.timers { &TYPED[..] } else { &TYPED[TIMERS.len()..] };
    let refusal = plan.typed.map(|tracepoints| load_typed(&mut bpf, typed, tracepoints).err());
    if let Some(Some(error)) = &refusal {
        log::debug!("plain tracepoints stand in for typed ones: {error}");
    }
    let needed = if let Some(None) = refusal {
        typed.to_vec()
    } else {
        let timers = if plan.timers { &TIMERS[..] } else { &[] };
        let plain: Vec<Hook> = timers.iter().copied().chain([STATE]).collect();
        for &hook in &plain {
            load_raw(&mut bpf, hook)?;
        }
        plain
    };
    let mut extra = Vec::new();
    for hook in optional(plan) {
        // The stack program says everything that the plain one says.
        let covered = hook == EOF && extra.contains(&EOF_STACK);
        if covered {
            continue;
        }
        match load_raw(&mut bpf, hook) {
            Ok(()) => extra.push(hook),
            Err(error) => skipped.push(skip(hook, &error)),
        }
    }
    for hook in needed {
        attach(&mut bpf, hook)?;
        programs.push(hook.program);
    }
    for hook in extra {
        match attach(&mut bpf, hook) {
            Ok(()) => programs.push(hook.program),
            Err(error) => skipped.push(skip(hook, &error)),
        }
    }
    // Programs name maps by descriptor until they are loaded, so the maps are taken out only now.
    Ok(Loaded {
        events: take(&mut bpf, "EVENTS")?,
        stacks: if plan.stacks { Some(take(&mut bpf, "STACKS")?) } else { None },
        counters: take(&mut bpf, "COUNTERS")?,
        lost_transitions: take(&mut bpf, "LOST_TRANSITIONS")?,
        reader_knows: shared_word(&bpf, "READER_KNOWS")?,
        log: EbpfLogger::init(&mut bpf).ok(),
        bpf,
        programs,
        skipped,
    })
}

/// Loads one program, attaches it and lets go of it again.
pub(super) fn try_out(bpf: &mut Ebpf, hook: Hook) -> Result<(), StartError> {
    let program = raw(bpf, hook)?;
    program.load().map_err(|error| program_error(hook, error))?;
    let attached = program.attach(hook.tracepoint).map_err(|error| attach_error(hook, error))?;
    program.detach(attached).map_err(|error| attach_error(hook, error))
}

/// Optional hooks in the order in which they are tried.
fn optional(plan: &Plan) -> Vec<Hook> {
    match (plan.stacks, plan.eof) {
        (true, _) => vec![EOF_STACK, EOF, CONNECT_STACK, SEND_STACK],
        (false, true) => vec![EOF],
        (false, false) => vec![],
    }
}

/// Whether a program of this name is at a typed tracepoint.
#[must_use]
pub fn is_typed(program: &str) -> bool {
    TYPED.iter().any(|hook| hook.program == program)
}

/// Loads every program at a typed tracepoint and lets go of them again.
pub(super) fn try_typed(bpf: &mut Ebpf, tracepoints: Tracepoints) -> Result<(), StartError> {
    load_typed(bpf, &TYPED, tracepoints)?;
    unload_typed(bpf, &TYPED);
    Ok(())
}

/// Loads programs at typed tracepoints, all or none; fails where the kernel does not take them.
fn load_typed(bpf: &mut Ebpf, hooks: &[Hook], tracepoints: Tracepoints) -> Result<(), StartError> {
    let btf = tracepoints
        .as_aya()
        .ok_or_else(|| StartError::Object("the kernel's BTF names none of the tracepoints".to_owned()))?;
    let mut load = |hook: Hook| {
        let program = typed(bpf, hook)?;
        program.load(hook.tracepoint, &btf).map_err(|error| program_error(hook, error))
    };
    let outcome = hooks.iter().try_for_each(|&hook| load(hook));
    drop(btf);
    give_back_memory();
    if outcome.is_err() {
        unload_typed(bpf, hooks);
    }
    outcome
}

fn unload_typed(bpf: &mut Ebpf, hooks: &[Hook]) {
    for &hook in hooks {
        if let Ok(program) = typed(bpf, hook) {
            // Fails for those that have not been loaded.
            let _ = program.unload();
        }
    }
}

fn load_raw(bpf: &mut Ebpf, hook: Hook) -> Result<(), StartError> {
    raw(bpf, hook)?.load().map_err(|error| program_error(hook, error))
}

/// Attaches one program for as long as it stays loaded.
fn attach(bpf: &mut Ebpf, hook: Hook) -> Result<(), StartError> {
    let attached = if TYPED.contains(&hook) {
        typed(bpf, hook)?.attach().map(drop)
    } else {
        raw(bpf, hook)?.attach(hook.tracepoint).map(drop)
    };
    attached.map_err(|error| attach_error(hook, error))
}

fn typed(bpf: &mut Ebpf, hook: Hook) -> Result<&mut BtfTracePoint, StartError> {
    let wrong = |what: &str| StartError::Object(format!("program {} {what}", hook.program));
    let program = bpf.program_mut(hook.program).ok_or_else(|| wrong("is not in it"))?;
    program.try_into().map_err(|_| wrong("is not at a typed tracepoint"))
}

fn raw(bpf: &mut Ebpf, hook: Hook) -> Result<&mut RawTracePoint, StartError> {
    let wrong = |what: &str| StartError::Object(format!("program {} {what}", hook.program));
    let program = bpf.program_mut(hook.program).ok_or_else(|| wrong("is not in it"))?;
    program.try_into().map_err(|_| wrong("is not a raw tracepoint"))
}

fn take<M: TryFrom<Map, Error = MapError>>(bpf: &mut Ebpf, name: &str) -> Result<M, StartError> {
    let map = bpf.take_map(name).ok_or_else(|| StartError::Object(format!("map {name} is not in it")))?;
    M::try_from(map).map_err(|error| StartError::Object(format!("map {name}: {}", whole(&error))))
}

fn shared_word(bpf: &Ebpf, name: &str) -> Result<SharedWord, StartError> {
    let Some(Map::Array(map)) = bpf.map(name) else {
        return Err(StartError::Object(format!("map {name} is not in it")));
    };
    SharedWord::of(map.fd().as_fd()).map_err(|error| StartError::Object(format!("map {name}: {error}")))
}

/// Says in one line why an optional hook is not there.
fn skip(hook: Hook, error: &StartError) -> SkippedHook {
    SkippedHook { name: hook.program, why: why(error) }
}

/// Why one hook does not work, in one line.
pub(super) fn why(error: &StartError) -> String {
    match error {
        StartError::Attach { source, tracepoint, .. } if source.raw_os_error() == Some(libc::ENOENT) => {
            format!("this kernel has no tracepoint {tracepoint}")
        }
        StartError::Rejected { log_end, .. } => {
            format!("this kernel's verifier rejects it: {}", verdict(log_end))
        }
        error => error.to_string(),
    }
}

fn object_error(error: EbpfError) -> StartError {
    match error {
        EbpfError::MapError(MapError::CreateError { name, io_error }) => {
            StartError::Map { map: name, source: io_error }
        }
        error => StartError::Object(whole(&error)),
    }
}

fn program_error(hook: Hook, error: ProgramError) -> StartError {
    let program = hook.program.to_owned();
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log_end = log_end(&verifier_log.to_string());
            // Without a log the verifier was never reached: a capability, seccomp, no memory.
            if log_end.is_empty() {
                StartError::Refused { program, source: io_error }
            } else {
                StartError::Rejected { program, source: io_error, log_end }
            }
        }
        error => StartError::Object(format!("program {program}: {}", whole(&error))),
    }
}

fn attach_error(hook: Hook, error: ProgramError) -> StartError {
    let source = match error {
        ProgramError::SyscallError(error) => error.io_error,
        error => io::Error::other(whole(&error)),
    };
    StartError::Attach { program: hook.program.to_owned(), tracepoint: hook.tracepoint.to_owned(), source }
}

/// An error and its causes: aya's texts leave the cause to `source()`.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Returns freed memory to the system. aya reads the whole of the kernel's BTF into small blocks and frees them again;
/// glibc would keep those 10 MB for the rest of the run.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function takes no pointer and is thread-safe.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lifts RLIMIT_MEMLOCK, against which kernels before 5.11 count BPF memory; as far as allowed, because a map that
/// does not fit says so itself.
pub(super) fn lift_memlock() {
    let unlimited = Rlimit { current: None, maximum: None };
    if setrlimit(Resource::Memlock, unlimited).is_err() {
        let maximum = getrlimit(Resource::Memlock).maximum;
        let _ = setrlimit(Resource::Memlock, Rlimit { current: maximum, maximum });
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
