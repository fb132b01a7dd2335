//! From registers and a copy of the stack to code addresses.
//!
//! Call-frame information (.eh_frame) says for every instruction where the caller's registers are; stock libc
//! and most programs are built without frame pointers, and a frame-pointer walk would lose exactly the
//! function that called recv(). Frame pointers are the fallback for code without call-frame information.

use framehop::{CacheNative, FrameAddress, MayAllocateDuringUnwind, UnwindRegsNative, Unwinder as _};

use super::frame::Role;
use super::memo::WordRead;
use super::modules::Modules;
use super::process::{Location, Process};
#[cfg(target_arch = "x86_64")]
use super::scan;
use super::{epilogue, role};
use crate::decode::StackSample;

/// Frames of one stack at most. Deeper ones are recursion or a loop in damaged call-frame information; the
/// frames next to the system call are what is looked for.
pub const MAX_FRAMES: usize = 128;

/// Changes of the module lists after which the cache of rules is thrown away: framehop numbers them with
/// 16 bits and would take a rule for that of another program once the numbers come round.
const CACHE_GENERATIONS: u32 = u16::MAX as u32 / 2;

/// How the walk over a stack ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WalkEnd {
    /// At the first function of the thread.
    Root,
    /// Where the copy of the stack ends: the frames beyond are not known.
    StackNotCopied,
    /// At [`MAX_FRAMES`].
    FrameLimit,
    /// In code without call-frame information and without usable frame pointers, or at an address where no
    /// code is mapped.
    Lost,
}

/// How a frame was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The instruction pointer itself, by call-frame information, by the code's own epilogue, or by a frame
    /// pointer that leads to code.
    Unwound,
    /// Past code that says nothing about its frames (musl): by looking through the stack for a return address,
    /// or by a frame pointer that such code may not have kept. Right as a rule, not for certain.
    Doubtful,
}

/// One frame: a code address, not yet symbolised.
#[derive(Clone, Debug)]
pub struct RawFrame {
    /// Address in the process to look up: inside the call instruction, not after it.
    pub address: u64,
    /// Where that is.
    pub location: Location,
    /// How it was found.
    pub trust: Trust,
    /// Its frame pointer, where its code keeps one.
    pub frame_pointer: u64,
    /// Call-frame information covers it.
    pub covered: bool,
}

/// Keeps what framehop learns between stacks.
pub struct UnwindCache {
    cache: CacheNative<MayAllocateDuringUnwind>,
    generations: u32,
}

impl Default for UnwindCache {
    fn default() -> Self {
        Self { cache: CacheNative::new(), generations: 0 }
    }
}

impl UnwindCache {
    /// Counts a change of some process's list of modules.
    fn module_added(&mut self) {
        self.generations += 1;
        if self.generations >= CACHE_GENERATIONS {
            *self = Self::default();
        }
    }
}

/// The copied part of a stack.
#[derive(Clone, Copy)]
pub struct StackCopy<'a> {
    start: u64,
    bytes: &'a [u8],
}

/// A read that the copy cannot answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutsideCopy {
    /// Below the stack pointer, or no stack address at all.
    Elsewhere,
    /// Above what was copied.
    Beyond,
}

/// Farthest above the copy that an address still counts as this stack's: the largest stack that programs set
/// (64 MiB), where RLIMIT_STACK is 8 MiB by default.
const MAX_STACK_BYTES: u64 = 64 << 20;

impl<'a> StackCopy<'a> {
    /// The copy inside a record.
    #[must_use]
    pub fn of(sample: &StackSample<'a>) -> Self {
        Self { start: sample.sp, bytes: sample.stack }
    }

    /// The word at an address.
    ///
    /// # Errors
    /// The address is not inside the copy.
    pub fn word(&self, address: u64) -> Result<u64, OutsideCopy> {
        let offset = address.checked_sub(self.start).ok_or(OutsideCopy::Elsewhere)?;
        let word =
            usize::try_from(offset).ok().and_then(|offset| self.bytes.get(offset..)?.first_chunk().copied());
        match word {
            Some(word) => Ok(u64::from_ne_bytes(word)),
            None if offset < MAX_STACK_BYTES => Err(OutsideCopy::Beyond),
            None => Err(OutsideCopy::Elsewhere),
        }
    }
}

/// What a walk found.
pub struct Walk {
    /// The frames, innermost first.
    pub frames: Vec<RawFrame>,
    /// How it ended.
    pub end: WalkEnd,
    /// What it read of the stack: with the registers, all that it depends on.
    pub words: Vec<WordRead>,
}

/// Walks the stack of a record in its process.
pub fn walk(
    sample: &StackSample<'_>,
    process: &mut Process,
    modules: &mut Modules,
    cache: &mut UnwindCache,
) -> Walk {
    let mut walker = Walker {
        stack: StackCopy::of(sample),
        registers: native(sample),
        process,
        modules,
        cache,
        frames: Vec::with_capacity(16),
        words: Vec::with_capacity(32),
        silent_so_far: true,
    };
    let end = walker.run(FrameAddress::from_instruction_pointer(sample.ip));
    Walk { frames: walker.frames, end, words: walker.words }
}

struct Walker<'a> {
    stack: StackCopy<'a>,
    registers: UnwindRegsNative,
    process: &'a mut Process,
    modules: &'a mut Modules,
    cache: &'a mut UnwindCache,
    frames: Vec<RawFrame>,
    words: Vec<WordRead>,
    /// No frame so far had call-frame information.
    silent_so_far: bool,
}

/// What is known of the frames of the code at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    /// Call-frame information describes them.
    Covered,
    /// Nothing does, and it is not code that keeps frame pointers: a libc, or part of a program the rest of
    /// which is covered.
    Silent,
    /// Nothing does; what is left without call-frame information altogether keeps frame pointers (Go, JIT
    /// compilers).
    FramePointers,
}

impl Code {
    fn at(location: &Location) -> Self {
        match location {
            Location::Module(module, stated) if module.covers(*stated) => Self::Covered,
            Location::Module(module, _) => {
                let is_libc = role::of_module(module.path()) == Role::System;
                if is_libc || module.has_cfi() { Self::Silent } else { Self::FramePointers }
            }
            Location::Jit | Location::Opaque { .. } => Self::FramePointers,
        }
    }
}

/// What one step found.
enum Step {
    To(FrameAddress, Trust),
    End(WalkEnd),
}

impl Walker<'_> {
    fn run(&mut self, first: FrameAddress) -> WalkEnd {
        let mut at = first;
        let mut trust = Trust::Unwound;
        loop {
            if self.frames.len() == MAX_FRAMES {
                return WalkEnd::FrameLimit;
            }
            let address = at.address_for_lookup();
            let Some(location) = self.locate(address) else { return WalkEnd::Lost };
            let code = Code::at(&location);
            let covered = code == Code::Covered;
            let (_, frame_pointer) = stack_registers(&self.registers);
            self.frames.push(RawFrame { address, location, trust, frame_pointer, covered });
            match self.step(at, code) {
                Step::To(next, how) => (at, trust) = (next, how),
                Step::End(end) => return end,
            }
        }
    }

    fn locate(&mut self, address: u64) -> Option<Location> {
        let known = self.process.unwinder.max_known_code_address();
        let location = self.process.locate(address, self.modules);
        if self.process.unwinder.max_known_code_address() != known {
            self.cache.module_added();
        }
        location
    }

    fn step(&mut self, at: FrameAddress, code: Code) -> Step {
        if code == Code::Covered {
            self.silent_so_far = false;
            return self.step_by_rules(at);
        }
        if let Some(next) = self.step_by_epilogue(at) {
            return next;
        }
        // Only at the top of the stack, next to the system call: further down a frame pointer is the rule for
        // code without call-frame information.
        self.silent_so_far &= code == Code::Silent;
        if !self.silent_so_far {
            return self.step_by_rules(at);
        }
        self.step_by_scan().unwrap_or_else(|| match self.step_by_rules(at) {
            Step::To(next, _) => Step::To(next, Trust::Doubtful),
            // A frame pointer of 0 is the end only in code that keeps one.
            Step::End(WalkEnd::Root) => Step::End(WalkEnd::Lost),
            end @ Step::End(_) => end,
        })
    }

    fn word(&mut self, address: u64) -> Result<u64, OutsideCopy> {
        let word = self.stack.word(address);
        self.words.push((address, word.ok()));
        word
    }

    /// Call-frame information, or the frame pointer where there is none.
    fn step_by_rules(&mut self, at: FrameAddress) -> Step {
        let mut missed = None;
        let (stack, words) = (self.stack, &mut self.words);
        let mut read = |address| {
            let word = stack.word(address);
            words.push((address, word.ok()));
            word.map_err(|outside| missed = Some(outside))
        };
        let unwinder = &self.process.unwinder;
        let next = unwinder.unwind_frame(at, &mut self.registers, &mut self.cache.cache, &mut read);
        match (next, missed) {
            (Ok(Some(address)), _) => match FrameAddress::from_return_address(address) {
                Some(next) => Step::To(next, Trust::Unwound),
                None => Step::End(WalkEnd::Root),
            },
            (Ok(None), _) => Step::End(WalkEnd::Root),
            (Err(_), Some(OutsideCopy::Beyond)) => Step::End(WalkEnd::StackNotCopied),
            (Err(_), _) => Step::End(WalkEnd::Lost),
        }
    }

    /// Reads the caller off the instructions that follow the call, where these are a plain epilogue: the call
    /// trampolines of CPython 3.12 have neither call-frame information nor a frame pointer.
    fn step_by_epilogue(&mut self, at: FrameAddress) -> Option<Step> {
        let mut code = [0; epilogue::MAX_BYTES];
        let count = self.process.read_code(at.address(), &mut code);
        let frame = epilogue::decode(&code[..count])?;
        let (sp, fp) = stack_registers(&self.registers);
        let slot = sp.checked_add(frame.return_slot)?;
        let fp = match frame.saved_frame_pointer {
            Some(offset) => self.word(sp.checked_add(offset)?).ok()?,
            None => fp,
        };
        let address = self.word(slot).ok()?;
        let next = FrameAddress::from_return_address(address)?;
        self.locate(next.address_for_lookup())?;
        set_registers(&mut self.registers, address, slot.checked_add(8)?, fp);
        Some(Step::To(next, Trust::Unwound))
    }

    /// Looks for the return address into code that can be unwound again.
    #[cfg(target_arch = "x86_64")]
    fn step_by_scan(&mut self) -> Option<Step> {
        let (sp, fp) = stack_registers(&self.registers);
        for slot in scan::slots(sp) {
            let address = self.word(slot).ok()?;
            let Some(next) = FrameAddress::from_return_address(address) else { continue };
            let lookup = next.address_for_lookup();
            if self.process.is_mapped(lookup)
                && let Some(Location::Module(module, stated)) = self.locate(lookup)
                && module.covers(stated)
                && self.follows_call(address)
            {
                set_registers(&mut self.registers, address, slot.checked_add(8)?, fp);
                return Some(Step::To(next, Trust::Doubtful));
            }
        }
        None
    }

    /// On this machine the place of a return address says nothing about where its frame ends.
    #[cfg(not(target_arch = "x86_64"))]
    fn step_by_scan(&mut self) -> Option<Step> {
        None
    }

    #[cfg(target_arch = "x86_64")]
    fn follows_call(&self, address: u64) -> bool {
        let mut before = [0; scan::CALL_BYTES];
        let start = address.wrapping_sub(scan::CALL_BYTES as u64);
        self.process.read_code(start, &mut before) == before.len() && scan::ends_with_call(&before)
    }
}

#[cfg(target_arch = "x86_64")]
fn native(sample: &StackSample<'_>) -> UnwindRegsNative {
    UnwindRegsNative::new(sample.ip, sample.sp, sample.fp)
}

#[cfg(target_arch = "x86_64")]
fn stack_registers(registers: &UnwindRegsNative) -> (u64, u64) {
    (registers.sp(), registers.bp())
}

#[cfg(target_arch = "x86_64")]
fn set_registers(registers: &mut UnwindRegsNative, ip: u64, sp: u64, fp: u64) {
    registers.set_ip(ip);
    registers.set_sp(sp);
    registers.set_bp(fp);
}

/// Return addresses may carry an authentication code above the 48 bits of a user address (PAC).
#[cfg(target_arch = "aarch64")]
fn native(sample: &StackSample<'_>) -> UnwindRegsNative {
    let mask = framehop::aarch64::PtrAuthMask((1 << 48) - 1);
    UnwindRegsNative::new_with_ptr_auth_mask(mask, sample.lr, sample.sp, sample.fp)
}

#[cfg(target_arch = "aarch64")]
fn stack_registers(registers: &UnwindRegsNative) -> (u64, u64) {
    (registers.sp(), registers.fp())
}

#[cfg(target_arch = "aarch64")]
fn set_registers(registers: &mut UnwindRegsNative, ip: u64, sp: u64, fp: u64) {
    registers.set_lr(ip);
    registers.set_sp(sp);
    registers.set_fp(fp);
}
