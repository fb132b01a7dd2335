//! Which addresses of a module its call-frame information covers.
//!
//! framehop falls back to frame pointers where nothing covers an address and does not say so; the rules for
//! such code depend on knowing it.

use std::ops::Range;
use std::sync::Arc;

use gimli::{
    BaseAddresses, CieOrFde, DebugFrame, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, UnwindSection,
};

use super::elf::{Layout, Section};

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// What call-frame information covers.
#[derive(Debug)]
pub enum Coverage {
    /// Look it up in `.eh_frame_hdr`, then in `.eh_frame`.
    Index {
        /// `.eh_frame`.
        frames: Arc<[u8]>,
        /// `.eh_frame_hdr`.
        index: Arc<[u8]>,
    },
    /// Stated addresses, sorted: read once from sections without an index.
    Ranges(Vec<Range<u64>>),
}

impl Coverage {
    /// The coverage of a module's sections. `.debug_frame` counts only without `.eh_frame`, as in framehop.
    #[must_use]
    pub fn of(
        layout: &Layout,
        eh_frame: Option<&Arc<[u8]>>,
        eh_frame_hdr: Option<&Arc<[u8]>>,
        debug_frame: Option<&Arc<[u8]>>,
    ) -> Self {
        let bases = bases(layout);
        match (eh_frame, eh_frame_hdr, debug_frame) {
            (Some(frames), Some(index), _) => Self::Index { frames: frames.clone(), index: index.clone() },
            (Some(frames), None, _) => {
                let mut section = EhFrame::new(frames, LittleEndian);
                section.set_address_size(8);
                Self::Ranges(ranges(&section, &bases))
            }
            (None, _, Some(frames)) => {
                let mut section = DebugFrame::new(frames, LittleEndian);
                section.set_address_size(8);
                Self::Ranges(ranges(&section, &bases))
            }
            (None, _, None) => Self::Ranges(Vec::new()),
        }
    }

    /// True when a stated address is covered.
    #[must_use]
    pub fn covers(&self, layout: &Layout, address: u64) -> bool {
        match self {
            Self::Index { frames, index } => {
                find_description(layout, frames, index, address).unwrap_or(false)
            }
            Self::Ranges(ranges) => {
                let after = ranges.partition_point(|range| range.start <= address);
                after > 0 && ranges[after - 1].contains(&address)
            }
        }
    }
}

/// Whether the frame description that the sorted index names for an address really covers it; `None` where
/// the index cannot be searched.
fn find_description(layout: &Layout, frames: &[u8], index: &[u8], address: u64) -> Option<bool> {
    let bases = bases(layout);
    let header = EhFrameHdr::new(index, LittleEndian).parse(&bases, 8).ok()?;
    let table = header.table()?;
    let mut section = EhFrame::new(frames, LittleEndian);
    section.set_address_size(8);
    let covers = || {
        let description = table.lookup(address, &bases)?;
        let offset = table.pointer_to_offset(description)?;
        let fde = section.fde_from_offset(&bases, offset, EhFrame::cie_from_offset)?;
        Ok::<_, gimli::Error>(fde.contains(address))
    };
    // An address before the first entry, or an entry that is damaged.
    Some(covers().unwrap_or(false))
}

/// The ranges of all frame descriptions, up to the first damaged one.
fn ranges<'a, S: UnwindSection<Bytes<'a>>>(section: &S, bases: &BaseAddresses) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    let mut entries = section.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        if let CieOrFde::Fde(partial) = entry
            && let Ok(fde) = partial.parse(S::cie_from_offset)
        {
            let start = fde.initial_address();
            ranges.push(start..start.saturating_add(fde.len()));
        }
    }
    ranges.sort_unstable_by_key(|range| range.start);
    ranges
}

fn bases(layout: &Layout) -> BaseAddresses {
    let start = |section: &Option<Section>| section.as_ref().map_or(0, |section| section.addresses.start);
    BaseAddresses::default()
        .set_text(start(&layout.text))
        .set_got(start(&layout.got))
        .set_eh_frame(start(&layout.eh_frame))
        .set_eh_frame_hdr(start(&layout.eh_frame_hdr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_and_without_the_index_the_same_is_covered() {
        let file = std::fs::read("/proc/self/exe").unwrap();
        let layout = Layout::read(&file[..]).unwrap();
        let bytes = |section: &Option<Section>| -> Arc<[u8]> {
            let range = section.as_ref().unwrap().file.clone();
            file[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].into()
        };
        let (frames, index) = (bytes(&layout.eh_frame), bytes(&layout.eh_frame_hdr));
        let indexed = Coverage::of(&layout, Some(&frames), Some(&index), None);
        let listed = Coverage::of(&layout, Some(&frames), None, None);
        let text = layout.text.clone().unwrap().addresses;
        assert!(!indexed.covers(&layout, 0) && !listed.covers(&layout, 0));
        let step = usize::try_from((text.end - text.start) / 997).unwrap();
        let mut covered = 0;
        for address in text.step_by(step) {
            assert_eq!(indexed.covers(&layout, address), listed.covers(&layout, address));
            covered += u32::from(indexed.covers(&layout, address));
        }
        assert!(covered > 900, "{covered}");
    }
}
