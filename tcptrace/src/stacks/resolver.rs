//! Records in, symbolised stacks out.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::frame::{Frame, Role, cut};
use super::jit_name;
use super::memo::{Memo, WordRead};
use super::modules::Modules;
use super::process::{Location, Process, ProcessError};
use super::role::{self, Evidence, Interpreter};
use super::stack::{Note, Stack, missing};
use super::symbolise::Symboliser;
use super::unwind::{RawFrame, StackCopy, Trust, UnwindCache, Walk, WalkEnd, walk};
use super::v8;
use crate::decode::{StackReason, StackSample};
use crate::event::MonoNs;
use crate::text;

/// How much is kept between records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Processes whose mappings are kept; each holds two descriptors.
    pub processes: usize,
    /// Files that are held open.
    pub modules: usize,
    /// Bytes of call-frame information.
    pub cfi_bytes: usize,
    /// Bytes of names from perf maps.
    pub perf_map_bytes: usize,
}

impl Default for Limits {
    /// Together with the symbols at most some 400 descriptors, below the usual soft limit of 1024.
    fn default() -> Self {
        Self { processes: 64, modules: 160, cfi_bytes: 128 << 20, perf_map_bytes: 64 << 20 }
    }
}

/// A stack whose addresses have been tied to modules, so that it can be symbolised when its process has gone.
#[derive(Debug)]
pub struct Capture {
    /// Why the stack was taken.
    pub reason: StackReason,
    /// When.
    pub at: MonoNs,
    /// Address of the socket.
    pub sk: u64,
    /// Process id (tgid).
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    frames: Vec<(RawFrame, Option<String>)>,
    end: WalkEnd,
    words: Vec<WordRead>,
}

impl Capture {
    /// Whether an equal sample would give an equal stack: not where a JIT compiler may have put another
    /// function in the place of one, and not where mappings that were not there may be there next time.
    fn is_repeatable(&self) -> bool {
        let is_fixed = |(raw, name): &(RawFrame, Option<String>)| {
            matches!(raw.location, Location::Module(..)) && name.is_none()
        };
        self.end == WalkEnd::Root && self.frames.iter().all(is_fixed)
    }
}

/// Turns stack records into stacks. Single-threaded; keeps what it learns of processes, files and symbols.
pub struct Stacks {
    limits: Limits,
    processes: HashMap<u32, Known>,
    modules: Modules,
    unwind_cache: UnwindCache,
    symboliser: Symboliser,
    clock: u64,
}

struct Known {
    process: Process,
    memo: Memo,
    /// When it was last used, in samples.
    used: u64,
}

impl Stacks {
    /// Nothing known yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            processes: HashMap::new(),
            modules: Modules::default(),
            unwind_cache: UnwindCache::default(),
            symboliser: Symboliser::default(),
            clock: 0,
        }
    }

    /// Unwinds a record and ties its addresses to open modules. Do this soon after the event, while the
    /// process is there: tens of microseconds for a known process, milliseconds for a new one. May block where
    /// the process's files lie on a file system that does.
    ///
    /// A process that has gone is captured from what is known of it.
    ///
    /// # Errors
    /// The process has gone and is not known, or may not be read.
    pub fn capture(&mut self, sample: &StackSample<'_>) -> Result<Capture, ProcessError> {
        self.make_room();
        self.clock += 1;
        let known = Self::known(&mut self.processes, sample.pid, self.clock)?;
        let process = &mut known.process;
        let Walk { frames, end, words } = walk(sample, process, &mut self.modules, &mut self.unwind_cache);
        let stack = StackCopy::of(sample);
        let frames = frames
            .into_iter()
            .map(|frame| {
                let name = jit_name_of(&frame, process, &stack);
                (frame, name)
            })
            .collect();
        let StackSample { reason, at, sk, pid, tid, .. } = *sample;
        Ok(Capture { reason, at, sk, pid, tid, frames, end, words })
    }

    /// Names the frames of a capture: a hash lookup for addresses seen before; the first address in a program
    /// with debug information costs milliseconds to, for the largest ones, a second.
    pub fn symbolise(&mut self, capture: &Capture) -> Stack {
        let mut frames: Vec<Frame> = Vec::with_capacity(capture.frames.len());
        let mut interpreter = None;
        let mut unreadable = None;
        for (raw, name) in &capture.frames {
            let first = frames.len();
            match &raw.location {
                Location::Module(module, _) if name.is_some() => {
                    frames.push(jit_frame(raw.address, name.as_deref()));
                    interpreter = interpreter.or_else(|| role::interpreter(module.path()));
                }
                Location::Module(module, address) => {
                    frames.extend_from_slice(&self.symboliser.frames(module, *address));
                    interpreter = interpreter.or_else(|| role::interpreter(module.path()));
                }
                Location::Jit => frames.push(jit_frame(raw.address, name.as_deref())),
                Location::Opaque { name, offset, why } => {
                    unreadable.get_or_insert_with(|| Note::Unreadable {
                        module: name.to_string(),
                        why: why.to_string(),
                    });
                    frames.push(opaque_frame(name, *offset));
                }
            }
            frames[first..].iter_mut().for_each(|frame| frame.scanned = raw.trust == Trust::Doubtful);
        }
        hide_start(&mut frames);
        let truncated = capture.end != WalkEnd::Root;
        let note = unreadable
            .or_else(|| missing(&frames, interpreter))
            .or_else(|| frames.is_empty().then(|| not_followed("its code is not mapped any more")));
        Stack { frames, truncated, note }
    }

    /// [`Stacks::capture`] and [`Stacks::symbolise`] at once, or the stack of an equal sample before: a
    /// microsecond or two. A process that cannot be looked at gives a stack without frames, and the reason as
    /// its note.
    pub fn resolve(&mut self, sample: &StackSample<'_>) -> Arc<Stack> {
        if let Some(stack) = self.recall(sample) {
            return stack;
        }
        let capture = match self.capture(sample) {
            Ok(capture) => capture,
            Err(error) => {
                let note = Some(not_followed(&error.to_string()));
                return Arc::new(Stack { frames: Vec::new(), truncated: true, note });
            }
        };
        let stack = Arc::new(self.symbolise(&capture));
        if capture.is_repeatable()
            && let Some(known) = self.processes.get_mut(&sample.pid)
        {
            known.memo.keep(sample, capture.words, stack.clone());
        }
        stack
    }

    fn recall(&mut self, sample: &StackSample<'_>) -> Option<Arc<Stack>> {
        let known = self.processes.get_mut(&sample.pid)?;
        let stack = known.memo.recall(sample).filter(|_| known.process.is_current())?;
        self.clock += 1;
        known.used = self.clock;
        Some(stack)
    }

    fn known(processes: &mut HashMap<u32, Known>, pid: u32, used: u64) -> Result<&mut Known, ProcessError> {
        let open = || Process::open(pid).map(|process| Known { process, memo: Memo::default(), used });
        let known = match processes.entry(pid) {
            Entry::Vacant(entry) => entry.insert(open()?),
            Entry::Occupied(entry) if entry.get().process.is_current() => entry.into_mut(),
            Entry::Occupied(mut entry) => match open() {
                Ok(fresh) => {
                    // Another program under the same pid: exec(), or the pid was given away.
                    entry.insert(fresh);
                    entry.into_mut()
                }
                Err(ProcessError::Gone(_)) => entry.into_mut(),
                Err(error) => return Err(error),
            },
        };
        known.used = used;
        Ok(known)
    }

    /// Lets go of the processes that were least recently used, and of the files that only they used, until
    /// there is room for one more of each.
    fn make_room(&mut self) {
        loop {
            let perf_map_bytes: usize =
                self.processes.values().map(|known| known.process.perf_map_bytes()).sum();
            let files_full = self.modules.count() >= self.limits.modules
                || self.modules.cfi_bytes() >= self.limits.cfi_bytes;
            let full = files_full
                || self.processes.len() >= self.limits.processes
                || perf_map_bytes >= self.limits.perf_map_bytes;
            let oldest = self.processes.iter().min_by_key(|(_, known)| known.used);
            let Some(pid) = oldest.map(|(&pid, _)| pid).filter(|_| full) else { return };
            self.processes.remove(&pid);
            self.modules.drop_unused();
        }
    }
}

impl Default for Stacks {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

/// What the process's JIT compiler calls the function of a frame, interpreted ones included.
fn jit_name_of(frame: &RawFrame, process: &mut Process, stack: &StackCopy<'_>) -> Option<String> {
    match &frame.location {
        Location::Jit => {
            process.perf_map()?.name(frame.address).map(|name| String::from_utf8_lossy(name).into_owned())
        }
        // V8's builtins lie in the program and have no call-frame information.
        Location::Module(module, _) if !frame.covered => {
            let is_node = role::interpreter(module.path()) == Some(Interpreter::Node);
            let names = is_node.then(|| process.perf_map()).flatten()?;
            v8::interpreted(stack, frame.frame_pointer, names)
        }
        Location::Module(..) | Location::Opaque { .. } => None,
    }
}

/// What stands below the application's first function and has no source is not the application's, though it
/// lies in its program: the C `main` that a language's runtime begins with, and `_start`.
fn hide_start(frames: &mut [Frame]) {
    for index in 1..frames.len() {
        let is_last = index + 1 == frames.len();
        let (inner, frame) = (frames[index - 1].role, &mut frames[index]);
        let is_main = frame.function.as_deref() == Some("main") && inner == Role::Runtime;
        if frame.file.is_none() && (is_main || is_last && inner == Role::System) {
            frame.role = Role::System;
        }
    }
}

fn jit_frame(address: u64, name: Option<&str>) -> Frame {
    let escaped = |text: &str| text::escape(text.as_bytes()).into_owned();
    // Code that nobody has named is some runtime's.
    let frame = Frame {
        function: None,
        file: None,
        line: None,
        module: None,
        address,
        inlined: false,
        role: Role::Runtime,
        scanned: false,
    };
    let Some(name) = name.map(jit_name::parse) else { return frame };
    let function = Some(escaped(&cut(&name.function)));
    let file = name.file.as_deref().map(escaped);
    let evidence = Evidence { function: function.as_deref(), file: file.as_deref(), module: None };
    let role = if name.is_runtime() { Role::Runtime } else { role::of(evidence) };
    Frame { role, function, file, line: name.line, ..frame }
}

fn opaque_frame(name: &str, offset: u64) -> Frame {
    let evidence = Evidence { function: None, file: None, module: Some(name) };
    Frame {
        function: None,
        file: None,
        line: None,
        module: Some(name.to_owned()),
        address: offset,
        inlined: false,
        role: role::of(evidence),
        scanned: false,
    }
}

fn not_followed(why: &str) -> Note {
    Note::NotFollowed(format!("the stack could not be followed: {why}"))
}
