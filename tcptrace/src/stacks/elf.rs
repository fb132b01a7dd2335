//! What an ELF file says about itself, as far as unwinding needs it: which addresses its executable segments
//! have, and where its call-frame information lies.
//!
//! The files belong to other people and are read by a tool that runs as root: every number is checked, every
//! read has a limit.

use std::ops::Range;

use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _};
use object::{LittleEndian, ReadRef};

/// Bytes that a single table of headers may have: 65,536 section headers. Linkers write some dozens.
pub const MAX_TABLE_BYTES: u64 = 4 << 20;

/// The machine whose registers the records hold.
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = elf::EM_X86_64;
/// The machine whose registers the records hold.
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = elf::EM_AARCH64;

/// Why a file cannot be used as a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// Not ELF, or damaged.
    #[error("not a usable ELF file: {0}")]
    Malformed(&'static str),
    /// For another machine or word size than the kernel's own.
    #[error("built for another machine or word size")]
    Foreign,
}

impl From<object::Error> for ElfError {
    fn from(_: object::Error) -> Self {
        Self::Malformed("its headers are damaged")
    }
}

/// A loaded, executable segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Offsets in the file.
    pub file: Range<u64>,
    /// Address of the first byte, as the file states it.
    pub address: u64,
}

/// A section: where in the file and at which stated address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Offsets in the file.
    pub file: Range<u64>,
    /// Stated addresses.
    pub addresses: Range<u64>,
}

/// The parts of an ELF file that unwinding needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Executable segments.
    pub segments: Vec<Segment>,
    /// Lowest stated address of any loaded segment: 0 for shared objects and position-independent programs.
    pub base: u64,
    /// `.text`.
    pub text: Option<Section>,
    /// `.got`.
    pub got: Option<Section>,
    /// `.eh_frame`.
    pub eh_frame: Option<Section>,
    /// `.eh_frame_hdr`: the sorted index of `eh_frame`.
    pub eh_frame_hdr: Option<Section>,
    /// `.debug_frame`, when not compressed.
    pub debug_frame: Option<Section>,
    /// What its compressed debug sections say they need when unpacked, in bytes.
    pub unpacked_debug_bytes: u64,
}

impl Layout {
    /// Reads the headers.
    ///
    /// # Errors
    /// The file is not ELF, is damaged, or is for another machine.
    pub fn read<'data, R: ReadRef<'data>>(data: R) -> Result<Self, ElfError> {
        let header = FileHeader64::<LittleEndian>::parse(data).map_err(|_| not_ours(data))?;
        if !header.is_little_endian() || header.e_machine(LittleEndian) != MACHINE {
            return Err(ElfError::Foreign);
        }
        let mut layout = Self::default();
        layout.read_segments(header.program_headers(LittleEndian, data)?)?;
        // Damaged or absent section headers leave a file without call-frame information, not unusable.
        if let Ok(sections) = header.sections(LittleEndian, data) {
            for section in sections.iter() {
                if let Ok(name) = sections.section_name(LittleEndian, section) {
                    layout.take_section(name, section, data);
                }
            }
        }
        Ok(layout)
    }

    fn read_segments(&mut self, headers: &[elf::ProgramHeader64<LittleEndian>]) -> Result<(), ElfError> {
        let loaded = || headers.iter().filter(|header| header.p_type(LittleEndian) == elf::PT_LOAD);
        self.base = loaded()
            .map(|header| header.p_vaddr(LittleEndian))
            .min()
            .ok_or(ElfError::Malformed("it has no loaded segment"))?;
        self.segments = loaded()
            .filter(|header| header.p_flags(LittleEndian) & elf::PF_X != 0)
            .filter_map(|header| {
                let start = header.p_offset(LittleEndian);
                let end = start.checked_add(header.p_filesz(LittleEndian))?;
                Some(Segment { file: start..end, address: header.p_vaddr(LittleEndian) })
            })
            .collect();
        Ok(())
    }

    fn take_section<'data, R: ReadRef<'data>>(
        &mut self,
        name: &[u8],
        header: &elf::SectionHeader64<LittleEndian>,
        data: R,
    ) {
        let place = || {
            let (start, len) = header.file_range(LittleEndian)?;
            let address = header.sh_addr(LittleEndian);
            Some(Section {
                file: start..start.checked_add(len)?,
                addresses: address..address.checked_add(len)?,
            })
        };
        match name {
            b".text" => self.text = place(),
            b".got" => self.got = place(),
            b".eh_frame" => self.eh_frame = place(),
            b".eh_frame_hdr" => self.eh_frame_hdr = place(),
            b".debug_frame" if !is_compressed(header) => self.debug_frame = place(),
            _ => {}
        }
        if name.starts_with(b".debug")
            && let Ok(Some((compression, ..))) = header.compression(LittleEndian, data)
        {
            let unpacked: u64 = compression.ch_size.get(LittleEndian);
            self.unpacked_debug_bytes = self.unpacked_debug_bytes.saturating_add(unpacked);
        }
    }

    /// The stated address that lies at a file offset: what `addr2line` and `objdump` take.
    #[must_use]
    pub fn address_of(&self, file_offset: u64) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| segment.file.contains(&file_offset))?;
        segment.address.checked_add(file_offset - segment.file.start)
    }

    /// What to add to stated addresses to get addresses in the process, for an executable mapping that
    /// begins at `start` and shows the file from `offset` on. `None` where the mapping shows no executable
    /// segment.
    ///
    /// The kernel maps whole pages (`elf_map`), so a mapping may begin before its segment does and show the
    /// end of the one before: the segment of which most is shown is meant.
    #[must_use]
    pub fn bias(&self, start: u64, offset: u64, len: u64) -> Option<u64> {
        let shown = offset..offset.checked_add(len)?;
        let (_, segment) = self
            .segments
            .iter()
            .filter_map(|segment| {
                let end = segment.file.end.min(shown.end);
                let bytes = end.checked_sub(segment.file.start.max(shown.start))?;
                (bytes > 0).then_some((bytes, segment))
            })
            .max_by_key(|&(bytes, _)| bytes)?;
        // Modulo 2^64: a non-PIE program has its segment at its stated address and the bias is 0.
        Some(start.wrapping_sub(offset).wrapping_add(segment.file.start).wrapping_sub(segment.address))
    }
}

fn is_compressed(header: &elf::SectionHeader64<LittleEndian>) -> bool {
    header.sh_flags(LittleEndian) & u64::from(elf::SHF_COMPRESSED) != 0
}

/// Tells an ELF file of another kind from what is no ELF file.
fn not_ours<'data, R: ReadRef<'data>>(data: R) -> ElfError {
    match data.read_bytes_at(0, 4) {
        Ok(magic) if *magic == elf::ELFMAG => ElfError::Foreign,
        _ => ElfError::Malformed("it has no ELF header"),
    }
}

/// A [`ReadRef`] that refuses to read more than [`MAX_TABLE_BYTES`] at once, so that no header can make us
/// allocate what it likes.
#[derive(Clone, Copy)]
pub struct Limited<R>(pub R);

impl<'data, R: ReadRef<'data>> ReadRef<'data> for Limited<R> {
    fn len(self) -> Result<u64, ()> {
        self.0.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'data [u8], ()> {
        if size > MAX_TABLE_BYTES {
            return Err(());
        }
        self.0.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'data [u8], ()> {
        self.0.read_bytes_at_until(range, delimiter)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn own() -> Vec<u8> {
        std::fs::read("/proc/self/exe").unwrap()
    }

    #[test]
    fn our_own_program_has_code_and_call_frame_information() {
        let file = own();
        let layout = Layout::read(Limited(&file[..])).unwrap();
        assert_eq!(layout.base, 0, "a position-independent program");
        assert!(layout.eh_frame.is_some() && layout.eh_frame_hdr.is_some());
        let text = layout.text.clone().unwrap();
        assert_eq!(layout.address_of(text.file.start), Some(text.addresses.start));
        let segment = &layout.segments[0];
        let page = segment.file.start & !0xfff;
        let bias = layout.bias(0x5555_5555_0000 + page, page, 0x1000).unwrap();
        assert_eq!(bias.wrapping_add(text.addresses.start), 0x5555_5555_0000 + text.file.start);
    }

    #[test]
    fn damaged_and_foreign_files_are_named() {
        assert_eq!(Layout::read(&b"#!/bin/sh\n"[..]), Err(ElfError::Malformed("it has no ELF header")));
        let mut foreign = own();
        foreign[18] = 8; // e_machine: MIPS
        assert_eq!(Layout::read(Limited(&foreign[..])), Err(ElfError::Foreign));
        foreign[4] = 1; // ELFCLASS32
        assert_eq!(Layout::read(Limited(&foreign[..])), Err(ElfError::Foreign));
        let mut cut = own();
        cut.truncate(100);
        assert!(matches!(Layout::read(Limited(&cut[..])), Err(ElfError::Malformed(_))));
    }

    proptest::proptest! {
        #[test]
        fn no_damage_panics(at in 0_usize..64, value: u8, tail in 64_usize..4096) {
            let mut file = vec![0; tail.max(at + 1)];
            std::fs::File::open("/proc/self/exe").unwrap().read_exact(&mut file).unwrap();
            file[at] = value;
            if let Ok(layout) = Layout::read(Limited(&file[..])) {
                let _ = layout.bias(u64::MAX, u64::MAX, 1);
                let _ = layout.address_of(u64::MAX);
            }
        }
    }
}
