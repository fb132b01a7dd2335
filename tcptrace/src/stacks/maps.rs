//! `/proc/PID/maps`: the executable mappings of a process.
//!
//! The paths in it are chosen by the process, so every line is checked and one that makes no sense is
//! skipped, not believed.

use std::ops::Range;

/// Executable mappings kept of one process. A browser or a JVM with many libraries has some hundreds; a JIT
/// that maps every function apart is cut here, and what is beyond counts as not mapped.
pub const MAX_MAPPINGS: usize = 8192;

/// Bytes of `/proc/PID/maps` that are read. 65530 mappings (vm.max_map_count) of 120 bytes fit.
pub const MAX_MAPS_BYTES: u64 = 16 << 20;

/// What lies behind a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Backing {
    /// A file, perhaps deleted by now, perhaps a memfd.
    File {
        /// Device number as the kernel prints it (`major:minor`), packed as `major << 32 | minor`.
        device: u64,
        /// Inode number.
        inode: u64,
        /// The path inside the process's own mount namespace: for display, not for opening.
        path: Vec<u8>,
    },
    /// The kernel's shared object: the same in every process of the same word size.
    Vdso,
    /// No file: code that a JIT compiler wrote.
    Anonymous,
}

/// One executable mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Addresses in the process.
    pub range: Range<u64>,
    /// Offset of the first byte in the file.
    pub offset: u64,
    /// What lies behind it.
    pub backing: Backing,
}

/// The executable mappings of one process, by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mappings(Vec<Mapping>);

impl Mappings {
    /// Parses the text of a `maps` file (`show_map_vma`), keeping executable mappings only.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut mappings: Vec<Mapping> =
            text.split(|&byte| byte == b'\n').filter_map(parse_line).take(MAX_MAPPINGS).collect();
        // The kernel writes them in order and without overlap; a lookup must not depend on it.
        mappings.sort_unstable_by_key(|mapping| mapping.range.start);
        mappings.dedup_by(|later, kept| later.range.start < kept.range.end);
        Self(mappings)
    }

    /// The mapping that holds this address.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<&Mapping> {
        let after = self.0.partition_point(|mapping| mapping.range.start <= address);
        let mapping = self.0.get(after.checked_sub(1)?)?;
        mapping.range.contains(&address).then_some(mapping)
    }

    /// All of them, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Mapping> {
        self.0.iter()
    }

    /// True without any executable mapping: a kernel thread, a zombie, or not permitted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `start-end perms offset major:minor inode   path`; `None` for what is not executable or not understood.
fn parse_line(line: &[u8]) -> Option<Mapping> {
    let mut rest = line;
    let mut field = || {
        let end = rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after.get(1..).unwrap_or_default();
        std::str::from_utf8(word).ok()
    };
    let (start, end) = field()?.split_once('-')?;
    let range = hex(start)?..hex(end)?;
    let executable = field()?.as_bytes().get(2) == Some(&b'x');
    let offset = hex(field()?)?;
    let (major, minor) = field()?.split_once(':')?;
    let device = hex(major)? << 32 | hex(minor)?;
    let inode: u64 = field()?.parse().ok()?;
    if !executable || range.is_empty() {
        return None;
    }
    let path = rest.trim_ascii_start();
    let backing = match (inode, path) {
        (0, b"[vdso]") => Backing::Vdso,
        // The vsyscall page lies in kernel space and runs no code of its own any more.
        (0, b"[vsyscall]") => return None,
        // Heaps, stacks and `[anon:name]` made executable hold JIT code as well. Inode 0 with a device is a
        // file system that numbers no inodes; nothing of that kind can be mapped executable.
        (0, _) => Backing::Anonymous,
        _ => Backing::File { device, inode, path: path.to_vec() },
    };
    Some(Mapping { range, offset, backing })
}

fn hex(text: &str) -> Option<u64> {
    // from_str_radix takes a sign; the kernel writes none.
    text.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(())?;
    u64::from_str_radix(text, 16).ok()
}

/// The path without the kernel's mark for a file that was deleted (` (deleted)`, `d_path`).
#[must_use]
pub fn without_deleted_mark(path: &[u8]) -> &[u8] {
    path.strip_suffix(b" (deleted)").unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &[u8] = b"\
00400000-00452000 r-xp 00001000 08:02 173521      /usr/bin/dbus daemon
00651000-00652000 r--p 00051000 08:02 173521      /usr/bin/dbus daemon
35b1a21000-35b1a22000 r-xp 00000000 00:00 0
35b1c00000-35b1c01000 rwxp 00000000 00:00 0                  [heap]
7f2c00000000-7f2c00001000 r-xs 00002000 00:01 1033           /memfd:doublemapper (deleted)
7f2c10000000-7f2c10004000 r-xp 00028000 fe:01 99             /usr/lib/libc.so.6 (deleted)
7ffc1b5d0000-7ffc1b5d2000 r-xp 00000000 00:00 0              [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0      [vsyscall]
";

    #[test]
    fn files_jit_code_memfds_and_the_vdso_are_told_apart() {
        let maps = Mappings::parse(MAPS);
        assert_eq!(maps.iter().count(), 6);
        let first = maps.find(0x0040_0000).unwrap();
        assert_eq!(first.offset, 0x1000);
        assert_eq!(
            first.backing,
            Backing::File { device: 8 << 32 | 2, inode: 173_521, path: b"/usr/bin/dbus daemon".to_vec() }
        );
        assert_eq!(maps.find(0x35_b1a2_1fff).unwrap().backing, Backing::Anonymous);
        assert_eq!(maps.find(0x35_b1c0_0000).unwrap().backing, Backing::Anonymous);
        assert!(matches!(
            &maps.find(0x7f2c_0000_0000).unwrap().backing,
            Backing::File { path, .. } if path.starts_with(b"/memfd:")
        ));
        assert_eq!(maps.find(0x7ffc_1b5d_1fff).unwrap().backing, Backing::Vdso);
        for outside in [0, 0x0045_2000, 0x0065_1000, 0xffff_ffff_ff60_0000, u64::MAX] {
            assert_eq!(maps.find(outside), None, "{outside:x}");
        }
        assert_eq!(without_deleted_mark(b"/usr/lib/libc.so.6 (deleted)"), b"/usr/lib/libc.so.6");
    }

    #[test]
    fn lines_that_make_no_sense_are_skipped() {
        for line in [
            &b"zz-10 r-xp 0 0:0 1 /a"[..],
            b"10-+20 r-xp 0 0:0 1 /a",
            b"20-10 r-xp 0 0:0 1 /a",
            b"10-20 r-xp 0 0:0",
            b"10-20",
            b"10-20 r-xp 0 0:0 99999999999999999999999 /a",
            b"\xff\xff",
            b"",
        ] {
            assert!(Mappings::parse(line).is_empty(), "{line:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_no_mappings_overlap(text in "[0-9a-f]{1,16}-[0-9a-f]{1,16} r-xp 0 0:0 [0-9]{1,2}( /x)?(\n[0-9a-f]{1,3}-[0-9a-f]{1,3} r-xp 0 0:0 0)*", at: u64) {
            let maps = Mappings::parse(text.as_bytes());
            let all: Vec<_> = maps.iter().collect();
            assert!(all.windows(2).all(|pair| pair[0].range.end <= pair[1].range.start));
            if let Some(mapping) = maps.find(at) {
                assert!(mapping.range.contains(&at));
            }
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Mappings::parse(&bytes);
        }
    }
}
