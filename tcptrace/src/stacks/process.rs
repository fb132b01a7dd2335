//! What is known of one process: its executable mappings, the modules behind them, its perf map.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use framehop::{MayAllocateDuringUnwind, Unwinder as _, UnwinderNative};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::elf::ElfError;
use super::maps::{Backing, MAX_MAPS_BYTES, Mapping, Mappings, without_deleted_mark};
use super::module::{MappedFile, Module, ModuleError};
use super::modules::Modules;
use super::perf_map::PerfMap;
use crate::text;

/// How long a process whose fresh mappings did not cover an address is taken at its word: garbage on its
/// stack must not make us read its mappings for every record.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);

/// How often a perf map is looked for that was not there: a JVM writes one when it is told to.
const PERF_MAP_PAUSE: Duration = Duration::from_secs(1);

/// Why a process could not be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProcessError {
    /// It has exited, or is a kernel thread.
    #[error("process {0} has gone")]
    Gone(u32),
    /// The kernel refused.
    #[error("cannot read /proc/{pid}/{file}: {errno}; reading other processes needs CAP_SYS_PTRACE")]
    Refused {
        /// Which process.
        pid: u32,
        /// Which file below its /proc directory.
        file: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
}

/// Where an address lies.
#[derive(Clone, Debug)]
pub enum Location {
    /// In a module, at this address as the file states it.
    Module(Arc<Module>, u64),
    /// In code that belongs to no ELF file: a JIT compiler's.
    Jit,
    /// In a file that could not be used: its name (escaped) and the offset in it.
    Opaque {
        /// Last component of its path, escaped.
        name: Arc<str>,
        /// Offset in the file.
        offset: u64,
        /// Why it could not be used.
        why: Arc<ModuleError>,
    },
}

/// What is known of one process.
pub struct Process {
    pid: u32,
    /// `/proc/PID`: names this very process, also when its pid has been given to another.
    directory: OwnedFd,
    /// `/proc/PID/auxv`, kept open: bound to the address space it was opened on, so that it reads as empty
    /// once the process has exited or called exec() (`auxv_open`, `mem_rw`).
    address_space: File,
    mappings: Mappings,
    refreshed_in_vain: Option<Instant>,
    /// What was found behind each mapping, by its first address.
    found: HashMap<u64, Found>,
    /// The modules met so far; framehop adds the frame-pointer rule for what they do not cover.
    pub(super) unwinder: UnwinderNative<Arc<[u8]>, MayAllocateDuringUnwind>,
    perf_map: Option<PerfMap>,
    perf_map_missed: Option<Instant>,
}

#[derive(Clone, Debug)]
enum Found {
    Module(Arc<Module>),
    Jit,
    Opaque { name: Arc<str>, why: Arc<ModuleError> },
}

impl Process {
    /// Opens a process and reads its mappings.
    ///
    /// # Errors
    /// It has gone, or may not be read.
    pub fn open(pid: u32) -> Result<Self, ProcessError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty())
            .map_err(|errno| refused(pid, ".", errno))?;
        let address_space = open_file(&directory, "auxv").map_err(|errno| refused(pid, "auxv", errno))?;
        let mut process = Self {
            pid,
            directory,
            address_space,
            mappings: Mappings::default(),
            refreshed_in_vain: None,
            found: HashMap::new(),
            unwinder: UnwinderNative::new(),
            perf_map: None,
            perf_map_missed: None,
        };
        process.mappings = process.read_mappings()?;
        Ok(process)
    }

    /// True while the process lives and runs the program that it ran when it was opened.
    #[must_use]
    pub fn is_current(&self) -> bool {
        matches!(self.address_space.read_at(&mut [0; 8], 0), Ok(1..))
    }

    /// Where an address lies; `None` where nothing executable is mapped. Modules are opened when an address
    /// in them is first asked for, and mappings are read again when they do not cover it.
    pub fn locate(&mut self, address: u64, modules: &mut Modules) -> Option<Location> {
        if self.mappings.find(address).is_none() && !self.refresh(address) {
            return None;
        }
        let mapping = self.mappings.find(address)?.clone();
        let found = match self.found.get(&mapping.range.start) {
            Some(found) => found.clone(),
            None => {
                let found = self.look_behind(&mapping, modules);
                self.found.insert(mapping.range.start, found.clone());
                found
            }
        };
        let offset = address - mapping.range.start + mapping.offset;
        Some(match found {
            Found::Module(module) => match module.layout().address_of(offset) {
                Some(stated) => Location::Module(module, stated),
                None => Location::Jit,
            },
            Found::Jit => Location::Jit,
            Found::Opaque { name, why } => Location::Opaque { name, offset, why },
        })
    }

    /// True when executable memory is known to be mapped there; mappings are not read again for it.
    #[cfg(target_arch = "x86_64")]
    #[must_use]
    pub fn is_mapped(&self, address: u64) -> bool {
        self.mappings.find(address).is_some()
    }

    /// Up to `bytes.len()` bytes of the process's code at `address`; how many could be read.
    pub fn read_code(&self, address: u64, bytes: &mut [u8]) -> usize {
        let Ok(memory) = open_file(&self.directory, "mem") else { return 0 };
        memory.read_at(bytes, address).unwrap_or(0)
    }

    /// The names that the process's JIT compiler has written down; `None` where it writes none.
    pub fn perf_map(&mut self) -> Option<&mut PerfMap> {
        if self.perf_map.is_none() && self.perf_map_missed.is_none_or(|at| at.elapsed() >= PERF_MAP_PAUSE) {
            self.perf_map = PerfMap::open(self.directory.as_fd());
            self.perf_map_missed = self.perf_map.is_none().then(Instant::now);
        }
        self.perf_map.as_mut()
    }

    /// Bytes of names held for this process.
    #[must_use]
    pub fn perf_map_bytes(&self) -> usize {
        self.perf_map.as_ref().map_or(0, PerfMap::bytes)
    }

    fn read_mappings(&self) -> Result<Mappings, ProcessError> {
        let mut text = Vec::new();
        open_file(&self.directory, "maps")
            .map(|file| file.take(MAX_MAPS_BYTES).read_to_end(&mut text))
            .map_err(|errno| refused(self.pid, "maps", errno))?
            .map_err(|error| refused(self.pid, "maps", Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        let mappings = Mappings::parse(&text);
        if mappings.is_empty() { Err(ProcessError::Gone(self.pid)) } else { Ok(mappings) }
    }

    /// Reads the mappings again because they do not cover `address`; true when they do now.
    fn refresh(&mut self, address: u64) -> bool {
        if self.refreshed_in_vain.is_some_and(|at| at.elapsed() < REFRESH_PAUSE) {
            return false;
        }
        // A process that has exited leaves what was known of it.
        if let Ok(fresh) = self.read_mappings() {
            for mapping in self.mappings.iter() {
                if fresh.find(mapping.range.start) != Some(mapping) {
                    self.found.remove(&mapping.range.start);
                    self.unwinder.remove_module(mapping.range.start);
                }
            }
            self.mappings = fresh;
        }
        let covered = self.mappings.find(address).is_some();
        self.refreshed_in_vain = (!covered).then(Instant::now);
        covered
    }

    fn look_behind(&mut self, mapping: &Mapping, modules: &mut Modules) -> Found {
        let module = match &mapping.backing {
            Backing::Anonymous => return Found::Jit,
            Backing::Vdso => match modules.vdso() {
                Some(vdso) => Ok(vdso),
                None => return Found::Jit,
            },
            Backing::File { inode, path, .. } => {
                MappedFile::open(self.directory.as_fd(), mapping, path, *inode)
                    .and_then(|file| modules.load(file))
            }
        };
        match (module, &mapping.backing) {
            (Ok(module), _) => {
                if let Some(unwind) = module.unwind_module(&mapping.range, mapping.offset) {
                    self.unwinder.add_module(unwind);
                }
                Found::Module(module)
            }
            // JIT compilers map code through memfds, shared memory and deleted temporary files.
            (Err(ModuleError::Elf(ElfError::Malformed(_))), _) => Found::Jit,
            (Err(why), Backing::File { path, .. }) => {
                let path = without_deleted_mark(path);
                let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
                Found::Opaque { name: text::escape(name).into(), why: Arc::new(why) }
            }
            (Err(_), Backing::Vdso | Backing::Anonymous) => Found::Jit,
        }
    }
}

fn open_file(directory: &OwnedFd, name: &str) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty()).map(File::from)
}

fn refused(pid: u32, file: &'static str, errno: Errno) -> ProcessError {
    match errno {
        Errno::NOENT | Errno::SRCH => ProcessError::Gone(pid),
        errno => ProcessError::Refused { pid, file, errno },
    }
}
