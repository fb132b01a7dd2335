//! Structures of the kernel, and two ways of reading their members.
//!
//! A raw tracepoint's arguments are numbers to the verifier, and what they point to is read by a helper
//! ([`Probed`], [`Window`]). A BTF-typed tracepoint's arguments are pointers whose type it knows, and members are
//! loaded like any memory ([`Typed`]), which costs a tenth; the verifier compares offset and size with the type.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid,
    generated::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_task, bpf_get_current_task_btf,
        bpf_skc_to_tcp_sock, bpf_task_pt_regs,
    },
};
use tcptrace_common::{config::ABSENT, record::COMM_LEN};

use crate::{
    config::config,
    kernel::{ReadFailed, read},
    window::Window,
};

/// A structure of the kernel. `T` is an integer or, where it says so, an array of integers: any bits are a value.
pub trait Object: Sized {
    /// Neighbouring members of it.
    type Near<const WORDS: usize>: Object;
    /// Another structure, found by way of this one.
    type Other: Object;

    /// Its address.
    fn address(&self) -> u64;

    /// Has to be called before members are read. A value that holds members is not moved afterwards.
    #[inline(always)]
    fn fill(&mut self) -> Result<(), ReadFailed> {
        Ok(())
    }

    /// The integer member at `offset`.
    fn member<T: Copy>(&self, offset: u32) -> Result<T, ReadFailed>;

    /// The 16 bytes at `offset`.
    fn address16(&self, offset: u32) -> Result<[u32; 4], ReadFailed>;

    /// What the pointer at `offset` points to.
    fn target(&self, offset: u32) -> Result<Self::Other, ReadFailed>;

    /// The members in `WORDS` words from that at `offset` on, to be filled.
    fn near<const WORDS: usize>(&self, offset: u32) -> Self::Near<WORDS>;

    /// The `tcp_sock` that this `sock` is the beginning of, which the caller knows not to be one of MPTCP; may be
    /// NULL.
    fn tcp(&self) -> Self::Other;

    /// NULL.
    fn null() -> Self::Other;

    /// Whether it is NULL.
    fn is_null(&self) -> bool;

    /// `current`.
    fn task() -> Self::Other;

    /// Process and thread id of `task`, which is `current`, in the initial pid namespace.
    fn pid_tid(task: &Self::Other) -> (u32, u32);

    /// Writes the name of `task`, which is `current`; zeros if that fails.
    ///
    /// # Safety
    /// `to` is inside a reserved record and aligned to 8.
    unsafe fn comm(task: &Self::Other, to: *mut [u8; COMM_LEN]);

    /// cgroup v2 id of `task`, which is `current`.
    fn cgroup_id(task: &Self::Other) -> u64;

    /// `orig_ax` of the registers that the user had on entering the kernel; `None` where it has to be looked for.
    fn system_call(task: &Self::Other) -> Result<Option<i64>, ReadFailed>;
}

/// A structure at an address, read by a helper one member at a time.
#[derive(Clone, Copy)]
pub struct Probed(pub u64);

impl Object for Probed {
    type Near<const WORDS: usize> = Window<WORDS>;
    type Other = Self;

    #[inline(always)]
    fn address(&self) -> u64 {
        self.0
    }

    #[inline(always)]
    fn member<T: Copy>(&self, offset: u32) -> Result<T, ReadFailed> {
        read(self.0, offset)
    }

    #[inline(always)]
    fn address16(&self, offset: u32) -> Result<[u32; 4], ReadFailed> {
        read(self.0, offset)
    }

    #[inline(always)]
    fn target(&self, offset: u32) -> Result<Self, ReadFailed> {
        read(self.0, offset).map(Self)
    }

    #[inline(always)]
    fn near<const WORDS: usize>(&self, offset: u32) -> Window<WORDS> {
        Window::new(self.0, offset)
    }

    #[inline(always)]
    fn tcp(&self) -> Self {
        *self
    }

    #[inline(always)]
    fn null() -> Self {
        Self(0)
    }

    #[inline(always)]
    fn is_null(&self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    fn task() -> Self {
        // SAFETY: the helper takes nothing and returns the address of `current`.
        Self(unsafe { bpf_get_current_task() })
    }

    #[inline(always)]
    fn pid_tid(_: &Self) -> (u32, u32) {
        let both = bpf_get_current_pid_tgid();
        ((both >> 32) as u32, both as u32)
    }

    #[inline(always)]
    unsafe fn comm(_: &Self, to: *mut [u8; COMM_LEN]) {
        // SAFETY: `to` points to as many bytes as said; on failure the helper fills them with zeros.
        unsafe {
            bpf_get_current_comm(to.cast(), COMM_LEN as u32);
        }
    }

    #[inline(always)]
    fn cgroup_id(_: &Self) -> u64 {
        // SAFETY: the helper takes nothing.
        unsafe { bpf_get_current_cgroup_id() }
    }

    #[inline(always)]
    fn system_call(_: &Self) -> Result<Option<i64>, ReadFailed> {
        Ok(None)
    }
}

impl<const N: usize> Object for Window<N> {
    type Near<const WORDS: usize> = Window<WORDS>;
    type Other = Probed;

    #[inline(always)]
    fn address(&self) -> u64 {
        self.address
    }

    #[inline(always)]
    fn fill(&mut self) -> Result<(), ReadFailed> {
        self.read()
    }

    #[inline(always)]
    fn member<T: Copy>(&self, offset: u32) -> Result<T, ReadFailed> {
        self.get(offset)
    }

    #[inline(always)]
    fn address16(&self, offset: u32) -> Result<[u32; 4], ReadFailed> {
        self.get(offset)
    }

    #[inline(always)]
    fn target(&self, offset: u32) -> Result<Probed, ReadFailed> {
        self.get(offset).map(Probed)
    }

    #[inline(always)]
    fn near<const WORDS: usize>(&self, offset: u32) -> Window<WORDS> {
        Window::new(self.address, offset)
    }

    #[inline(always)]
    fn tcp(&self) -> Probed {
        Probed(self.address)
    }

    #[inline(always)]
    fn null() -> Probed {
        Probed(0)
    }

    #[inline(always)]
    fn is_null(&self) -> bool {
        self.address == 0
    }

    #[inline(always)]
    fn task() -> Probed {
        Probed::task()
    }

    #[inline(always)]
    fn pid_tid(task: &Probed) -> (u32, u32) {
        Probed::pid_tid(task)
    }

    #[inline(always)]
    unsafe fn comm(task: &Probed, to: *mut [u8; COMM_LEN]) {
        // SAFETY: as promised to this one.
        unsafe { Probed::comm(task, to) }
    }

    #[inline(always)]
    fn cgroup_id(task: &Probed) -> u64 {
        Probed::cgroup_id(task)
    }

    #[inline(always)]
    fn system_call(task: &Probed) -> Result<Option<i64>, ReadFailed> {
        Probed::system_call(task)
    }
}

/// A structure whose type the verifier knows, because the pointer came from a typed argument. Takes kernel 5.15
/// (`bpf_task_pt_regs`).
#[derive(Clone, Copy)]
pub struct Typed(*const u8);

impl Typed {
    /// `pointer` is a typed argument, or was loaded from a member that is a typed pointer.
    #[inline(always)]
    pub fn new(pointer: *const u8) -> Self {
        Self(pointer)
    }

    #[inline(always)]
    fn load<T: Copy>(&self, offset: u32) -> T {
        // SAFETY: the verifier has compared offset and size with the structure's type; where the memory is gone,
        // the kernel lets the load give 0. Volatile, so that the load keeps the size of the member.
        unsafe { self.0.add(offset as usize).cast::<T>().read_volatile() }
    }
}

impl Object for Typed {
    type Near<const WORDS: usize> = Self;
    type Other = Self;

    #[inline(always)]
    fn address(&self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    fn member<T: Copy>(&self, offset: u32) -> Result<T, ReadFailed> {
        Ok(self.load(offset))
    }

    #[inline(always)]
    fn address16(&self, offset: u32) -> Result<[u32; 4], ReadFailed> {
        // The verifier takes loads of at most 8 bytes.
        Ok([self.load(offset), self.load(offset + 4), self.load(offset + 8), self.load(offset + 12)])
    }

    #[inline(always)]
    fn target(&self, offset: u32) -> Result<Self, ReadFailed> {
        Ok(Self(self.load(offset)))
    }

    #[inline(always)]
    fn near<const WORDS: usize>(&self, _offset: u32) -> Self {
        *self
    }

    #[inline(always)]
    fn tcp(&self) -> Self {
        // SAFETY: the verifier knows the argument to be a socket; the helper checks what kind and returns NULL for
        // any but TCP's.
        Self(unsafe { bpf_skc_to_tcp_sock(self.0.cast_mut().cast()) }.cast_const().cast())
    }

    #[inline(always)]
    fn null() -> Self {
        Self(core::ptr::null())
    }

    #[inline(always)]
    fn is_null(&self) -> bool {
        self.0.is_null()
    }

    #[inline(always)]
    fn task() -> Self {
        // SAFETY: the helper takes nothing and returns `current`, typed.
        Self(unsafe { bpf_get_current_task_btf() }.cast_const().cast())
    }

    #[inline(always)]
    fn pid_tid(task: &Self) -> (u32, u32) {
        (task.load(config!(offsets.task_tgid)), task.load(config!(offsets.task_pid)))
    }

    #[inline(always)]
    unsafe fn comm(task: &Self, to: *mut [u8; COMM_LEN]) {
        // Two words, as the name stands in memory.
        let offset = config!(offsets.task_comm);
        let words: [u64; 2] = [task.load(offset), task.load(offset + 8)];
        // SAFETY: the 16 bytes are inside a record and aligned, as promised.
        unsafe { to.cast::<[u64; 2]>().write(words) };
    }

    #[inline(always)]
    fn cgroup_id(task: &Self) -> u64 {
        if config!(offsets.task_cgroups) == ABSENT {
            return Probed::cgroup_id(&Probed(0));
        }
        // What the helper does, without the call of it: `cgroup_id(task_dfl_cgroup(current))`.
        let css_set = Self(task.load(config!(offsets.task_cgroups)));
        let cgroup = Self(css_set.load(config!(offsets.css_set_dfl_cgrp)));
        let node = Self(cgroup.load(config!(offsets.cgroup_kn)));
        node.load(config!(offsets.kernfs_node_id))
    }

    #[inline(always)]
    fn system_call(task: &Self) -> Result<Option<i64>, ReadFailed> {
        if config!(offsets.regs_orig_ax) == ABSENT {
            return Ok(None);
        }
        // SAFETY: the verifier knows the argument to be a task; its registers are within its kernel stack.
        let regs = Self(unsafe { bpf_task_pt_regs(task.0.cast_mut().cast()) } as *const u8);
        Ok(Some(regs.load(config!(offsets.regs_orig_ax))))
    }
}
