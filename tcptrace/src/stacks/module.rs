//! A module: one ELF file that processes map, opened once and kept open, so that its symbols can still be
//! read when the process has gone or the file was deleted.

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use framehop::ExplicitModuleSectionInfo;
use object::ReadCache;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::coverage::Coverage;
use super::elf::{ElfError, Layout, Limited, Section};
use super::maps::{Mapping, without_deleted_mark};
use crate::text;

/// Bytes of call-frame information read from one module. Chromium, among the largest programs there are, has
/// 12 MiB; beyond the limit the module is unwound by frame pointers.
pub const MAX_CFI_BYTES: u64 = 64 << 20;

/// Compressed debug information is unpacked in memory when symbols are looked up. A module that says it needs
/// more than this is symbolised from its symbol table alone: without file and line.
pub const MAX_UNPACKED_DEBUG_BYTES: u64 = 1 << 30;

/// Why a mapped file could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    /// The file could not be opened through the process.
    #[error("cannot open it through /proc/PID/map_files ({map_files}) nor /proc/PID/root ({root})")]
    Open {
        /// What /proc/PID/map_files answered: EPERM without CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
        map_files: Errno,
        /// What the path in the process's own root answered.
        root: Errno,
    },
    /// The path now names another file than the one that is mapped.
    #[error("the file at its path has been replaced since it was mapped")]
    Replaced,
    /// A device or something else that must not be opened just to look at it.
    #[error("not a regular file")]
    NotRegular,
    /// Reading it failed.
    #[error("cannot read it: {0}")]
    Read(std::io::ErrorKind),
    /// It is not an ELF file of this machine.
    #[error(transparent)]
    Elf(#[from] ElfError),
}

/// Which file, and which version of it: two processes in different containers that run the same image layer
/// share a module; a rebuilt program is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModuleId {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// Where the bytes of a module are.
#[derive(Debug)]
enum Source {
    /// An open file.
    File(File),
    /// The kernel's shared object, which is no file.
    Vdso,
}

/// An ELF file, its layout and its call-frame information.
#[derive(Debug)]
pub struct Module {
    id: ModuleId,
    source: Source,
    name: String,
    path: String,
    layout: Layout,
    eh_frame: Option<Arc<[u8]>>,
    eh_frame_hdr: Option<Arc<[u8]>>,
    debug_frame: Option<Arc<[u8]>>,
    coverage: Coverage,
}

/// An open, regular file behind a mapping, not yet looked into.
#[derive(Debug)]
pub struct MappedFile {
    file: File,
    /// Which file it is.
    pub id: ModuleId,
    path: Vec<u8>,
}

impl MappedFile {
    /// Opens the file behind a mapping of the process whose /proc directory is `process`.
    ///
    /// `map_files` leads to the very file, whatever happened to its path and in whatever mount namespace it
    /// lies, but asks for CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN (`proc_map_files_follow_link`). Without
    /// them the path is looked up below the process's root, and must still be the same inode.
    ///
    /// # Errors
    /// The file cannot be opened, is no regular file, or is not the mapped one any more.
    pub fn open(
        process: BorrowedFd<'_>,
        mapping: &Mapping,
        path: &[u8],
        inode: u64,
    ) -> Result<Self, ModuleError> {
        let Range { start, end } = mapping.range;
        let exact = format!("map_files/{start:x}-{end:x}");
        let found = match rustix::fs::openat(process, exact, PEEK, Mode::empty()) {
            Ok(found) => found,
            Err(map_files) => {
                let found = open_below_root(process, without_deleted_mark(path))
                    .map_err(|root| ModuleError::Open { map_files, root })?;
                // The device numbers differ on purpose on btrfs and overlayfs: only the inode can be held
                // against what `maps` said.
                if rustix::fs::fstat(&found).map_err(read_error)?.st_ino != inode {
                    return Err(ModuleError::Replaced);
                }
                found
            }
        };
        Self::reopen(&found, path)
    }

    /// Turns a handle that only names a file into one that reads it, once it is known to be a regular file:
    /// opening a device can have effects, opening a FIFO can block.
    fn reopen(found: &OwnedFd, path: &[u8]) -> Result<Self, ModuleError> {
        let regular = |mode| rustix::fs::FileType::from_raw_mode(mode).is_file();
        if !regular(rustix::fs::fstat(found).map_err(read_error)?.st_mode) {
            return Err(ModuleError::NotRegular);
        }
        let file = File::open(fd_path(found)).map_err(|error| ModuleError::Read(error.kind()))?;
        let metadata = file.metadata().map_err(|error| ModuleError::Read(error.kind()))?;
        let id = ModuleId {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        };
        Ok(Self { file, id, path: path.to_vec() })
    }

    /// Reads headers and call-frame information.
    ///
    /// # Errors
    /// The file cannot be read or is no ELF file of this machine.
    pub fn load(self) -> Result<Module, ModuleError> {
        let layout = {
            let cache = ReadCache::new(&self.file);
            Layout::read(Limited(&cache))?
        };
        let section = |section: &Option<Section>| {
            section.as_ref().and_then(|section| read_section(&self.file, self.id.size, section))
        };
        let path = without_deleted_mark(&self.path);
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
        let (eh_frame, eh_frame_hdr, debug_frame) =
            (section(&layout.eh_frame), section(&layout.eh_frame_hdr), section(&layout.debug_frame));
        let coverage = Coverage::of(&layout, eh_frame.as_ref(), eh_frame_hdr.as_ref(), debug_frame.as_ref());
        Ok(Module {
            id: self.id,
            source: Source::File(self.file),
            name: text::escape(name).into_owned(),
            path: text::escape(path).into_owned(),
            layout,
            eh_frame,
            eh_frame_hdr,
            debug_frame,
            coverage,
        })
    }
}

impl Module {
    /// The kernel's shared object, read from our own memory: it is the same in every process of our word
    /// size. `None` where it is not mapped or not readable.
    #[must_use]
    pub fn vdso() -> Option<Self> {
        let maps = std::fs::read("/proc/self/maps").ok()?;
        let maps = super::maps::Mappings::parse(&maps);
        let mapping = maps.iter().find(|mapping| mapping.backing == super::maps::Backing::Vdso)?;
        let len = usize::try_from(mapping.range.end - mapping.range.start).ok()?;
        let mut image = vec![0; len.min(1 << 20)];
        File::open("/proc/self/mem").ok()?.read_exact_at(&mut image, mapping.range.start).ok()?;
        let layout = Layout::read(Limited(&image[..])).ok()?;
        let section = |section: &Option<Section>| {
            let file = &section.as_ref()?.file;
            let range = usize::try_from(file.start).ok()?..usize::try_from(file.end).ok()?;
            Some(Arc::from(image.get(range)?))
        };
        let (eh_frame, eh_frame_hdr) = (section(&layout.eh_frame), section(&layout.eh_frame_hdr));
        let coverage = Coverage::of(&layout, eh_frame.as_ref(), eh_frame_hdr.as_ref(), None);
        Some(Self {
            id: ModuleId { device: 0, inode: 0, size: image.len() as u64, modified: (0, 0) },
            source: Source::Vdso,
            name: "[vdso]".to_owned(),
            path: "[vdso]".to_owned(),
            layout,
            eh_frame,
            eh_frame_hdr,
            debug_frame: None,
            coverage,
        })
    }

    /// Which file this is.
    #[must_use]
    pub fn id(&self) -> ModuleId {
        self.id
    }

    /// Last component of its path, escaped.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path in the mount namespace of the process that was first seen using it, escaped.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its segments and sections.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// True when it has call-frame information at all.
    #[must_use]
    pub fn has_cfi(&self) -> bool {
        self.eh_frame.is_some() || self.debug_frame.is_some()
    }

    /// True when call-frame information covers a stated address; where it does not, frame pointers are all
    /// there is.
    #[must_use]
    pub fn covers(&self, address: u64) -> bool {
        self.coverage.covers(&self.layout, address)
    }

    /// Bytes of call-frame information held in memory.
    #[must_use]
    pub fn cfi_bytes(&self) -> usize {
        [&self.eh_frame, &self.eh_frame_hdr, &self.debug_frame]
            .into_iter()
            .flatten()
            .map(|bytes| bytes.len())
            .sum()
    }

    /// A path that opens this very file while the module is held, whatever became of its name. `None` for the
    /// vdso.
    #[must_use]
    pub fn readable_path(&self) -> Option<PathBuf> {
        match &self.source {
            Source::File(file) => Some(fd_path(file)),
            Source::Vdso => None,
        }
    }

    /// Whether file and line may be looked up: see [`MAX_UNPACKED_DEBUG_BYTES`].
    #[must_use]
    pub fn debug_info_is_bearable(&self) -> bool {
        self.layout.unpacked_debug_bytes <= MAX_UNPACKED_DEBUG_BYTES
    }

    /// The module as framehop takes it, for one executable mapping. `None` where the mapping shows none of
    /// its executable segments.
    #[must_use]
    pub fn unwind_module(&self, range: &Range<u64>, offset: u64) -> Option<framehop::Module<Arc<[u8]>>> {
        let bias = self.layout.bias(range.start, offset, range.end - range.start)?;
        let addresses = |section: &Option<Section>| section.as_ref().map(|section| section.addresses.clone());
        let sections = ExplicitModuleSectionInfo {
            base_svma: self.layout.base,
            text_svma: addresses(&self.layout.text),
            got_svma: addresses(&self.layout.got),
            eh_frame_svma: addresses(&self.layout.eh_frame),
            eh_frame: self.eh_frame.clone(),
            eh_frame_hdr_svma: addresses(&self.layout.eh_frame_hdr),
            eh_frame_hdr: self.eh_frame_hdr.clone(),
            debug_frame: self.debug_frame.clone(),
            ..ExplicitModuleSectionInfo::default()
        };
        let base = bias.wrapping_add(self.layout.base);
        Some(framehop::Module::new(self.name.clone(), range.clone(), base, sections))
    }
}

/// Only name the file: no permission to read, no effect on devices and FIFOs.
const PEEK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Opens `path` as the process sees it. Symbolic links stay below its root, so that a container cannot point
/// us at the host's files.
pub fn open_below_root(process: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let directory = PEEK.union(OFlags::DIRECTORY);
    let root = rustix::fs::openat(process, "root", directory, Mode::empty())?;
    let confined = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, PEEK, Mode::empty(), confined)
}

/// The path by which an open file can be opened again.
pub fn fd_path(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

fn read_error(errno: Errno) -> ModuleError {
    ModuleError::Read(errno.kind())
}

/// The bytes of a section; `None` when it is empty, larger than [`MAX_CFI_BYTES`], or not all there.
fn read_section(file: &File, file_len: u64, section: &Section) -> Option<Arc<[u8]>> {
    let Range { start, end } = section.file;
    let len = end.checked_sub(start).filter(|&len| (1..=MAX_CFI_BYTES).contains(&len))?;
    if end > file_len {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    file.read_exact_at(&mut bytes, start).ok()?;
    Some(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stacks::maps::{Backing, Mappings};

    fn own_directory() -> OwnedFd {
        rustix::fs::open("/proc/self", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    fn own_mapping() -> (Mapping, Vec<u8>, u64) {
        let maps = Mappings::parse(&std::fs::read("/proc/self/maps").unwrap());
        let mapping = maps.find(own_mapping as *const () as usize as u64).unwrap().clone();
        let Backing::File { path, inode, .. } = mapping.backing.clone() else { panic!("no file") };
        (mapping, path, inode)
    }

    #[test]
    fn our_own_program_is_opened_by_map_files_or_by_path() {
        let directory = own_directory();
        let (mut mapping, path, inode) = own_mapping();
        let by_either = MappedFile::open(directory.as_fd(), &mapping, &path, inode).unwrap();
        // A range that is no mapping leaves the path.
        mapping.range.end += 1;
        let by_path = MappedFile::open(directory.as_fd(), &mapping, &path, inode).unwrap();
        assert_eq!(by_either.id, by_path.id);
        let replaced = MappedFile::open(directory.as_fd(), &mapping, &path, inode + 1);
        assert_eq!(replaced.unwrap_err(), ModuleError::Replaced);

        let module = by_either.load().unwrap();
        assert!(module.cfi_bytes() > 1000);
        assert!(path.ends_with(module.name().as_bytes()));
        assert!(module.unwind_module(&own_mapping().0.range, own_mapping().0.offset).is_some());
    }

    #[test]
    fn devices_and_absent_files_are_not_opened() {
        let directory = own_directory();
        let (mut mapping, ..) = own_mapping();
        mapping.range = 0..1;
        let inode = std::fs::metadata("/dev/null").unwrap().ino();
        let device = MappedFile::open(directory.as_fd(), &mapping, b"/dev/null", inode);
        assert_eq!(device.unwrap_err(), ModuleError::NotRegular);
        let absent = MappedFile::open(directory.as_fd(), &mapping, b"/nothing/there", 1);
        assert!(matches!(absent, Err(ModuleError::Open { root: Errno::NOENT, .. })), "{absent:?}");
    }

    #[test]
    fn the_vdso_is_a_module() {
        let Some(vdso) = Module::vdso() else {
            eprintln!("SKIPPED: no vdso is mapped here");
            return;
        };
        assert!(vdso.cfi_bytes() > 0);
        assert_eq!(vdso.readable_path(), None);
    }
}
