//! Perf maps: the names that JIT compilers write to `/tmp/perf-PID.map`, one `start size name` a line with
//! hexadecimal numbers (tools/perf/Documentation/jit-interface.txt).
//!
//! Written by `node --perf-basic-prof`, CPython 3.12 and later with `-X perf`, the JVM on
//! `jcmd PID Compiler.perfmap` and others. The file grows while the program runs; only what was added is read.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use super::module::{fd_path, open_below_root};

/// Functions remembered of one process. A large Node service has some ten thousands.
pub const MAX_FUNCTIONS: usize = 262_144;

/// Bytes of names remembered of one process. Beyond either limit later functions have no name.
pub const MAX_NAME_BYTES: usize = 32 << 20;

/// Bytes read of one file in all.
pub const MAX_FILE_BYTES: u64 = 512 << 20;

/// Bytes read of one file at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Length of one line at most: longer ones are cut by their writers, or are no perf map.
const MAX_LINE_BYTES: usize = 16 << 10;

/// The functions of one process's JIT compilers.
#[derive(Debug)]
pub struct PerfMap {
    file: File,
    functions: Functions,
    read_bytes: u64,
    /// The end of the file when last read: an unfinished line.
    unfinished: Vec<u8>,
}

#[derive(Debug, Default)]
struct Functions {
    /// End and name by first address. Never overlapping: code that was moved or thrown away is overwritten by
    /// what was written later.
    by_start: BTreeMap<u64, (u64, Box<[u8]>)>,
    name_bytes: usize,
}

impl PerfMap {
    /// Opens the perf map of the process whose /proc directory is `process`, below its own root and under its
    /// pid in its own pid namespace. As perf does, it believes only a regular file that belongs to the
    /// process's user or to root: /tmp is writable by everybody.
    #[must_use]
    pub fn open(process: BorrowedFd<'_>) -> Option<Self> {
        let pid = inner_pid(process)?;
        let name = format!("tmp/perf-{pid}.map");
        let found = open_below_root(process, name.as_bytes()).ok()?;
        let status = rustix::fs::fstat(&found).ok()?;
        let owner = rustix::fs::fstat(process).ok()?.st_uid;
        if !rustix::fs::FileType::from_raw_mode(status.st_mode).is_file()
            || ![0, owner].contains(&status.st_uid)
        {
            return None;
        }
        Some(Self::from_file(File::open(fd_path(&found)).ok()?))
    }

    fn from_file(file: File) -> Self {
        Self { file, functions: Functions::default(), read_bytes: 0, unfinished: Vec::new() }
    }

    /// The name of the function that holds `address`, unescaped.
    pub fn name(&mut self, address: u64) -> Option<&[u8]> {
        self.read_on();
        self.functions.find(address)
    }

    /// The name of the function that begins in a range, unescaped: the first one.
    pub fn begins_in(&mut self, range: Range<u64>) -> Option<&[u8]> {
        self.read_on();
        let (_, (_, name)) = self.functions.by_start.range(range).next()?;
        Some(name)
    }

    /// Bytes of names held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.functions.name_bytes
    }

    /// Reads what was written since the last time.
    fn read_on(&mut self) {
        let len = self.file.metadata().map_or(0, |metadata| metadata.size()).min(MAX_FILE_BYTES);
        if len < self.read_bytes {
            // Begun anew: another program run under the same pid.
            self.functions = Functions::default();
            self.unfinished.clear();
            self.read_bytes = 0;
        }
        let missing = usize::try_from(len - self.read_bytes).unwrap_or(usize::MAX);
        let mut chunk = vec![0; missing.min(CHUNK_BYTES)];
        while self.read_bytes < len {
            let Ok(count @ 1..) = self.file.read_at(&mut chunk, self.read_bytes) else { return };
            self.read_bytes += count as u64;
            self.take(&chunk[..count]);
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let mut lines = bytes.split(|&byte| byte == b'\n');
        let last = lines.next_back().unwrap_or_default();
        for line in lines {
            if self.unfinished.is_empty() {
                self.functions.add_line(line);
            } else {
                self.unfinished.extend_from_slice(line);
                self.functions.add_line(&self.unfinished);
                self.unfinished.clear();
            }
        }
        let room = MAX_LINE_BYTES.saturating_sub(self.unfinished.len());
        self.unfinished.extend_from_slice(&last[..last.len().min(room)]);
    }
}

impl Functions {
    fn find(&self, address: u64) -> Option<&[u8]> {
        let (_, (end, name)) = self.by_start.range(..=address).next_back()?;
        (address < *end).then_some(name)
    }

    fn add_line(&mut self, line: &[u8]) {
        let Some((start, size, name)) = parse_line(line) else { return };
        let Some(end) = start.checked_add(size) else { return };
        let full = self.by_start.len() >= MAX_FUNCTIONS || self.name_bytes + name.len() > MAX_NAME_BYTES;
        if full {
            return;
        }
        self.forget(start, end);
        self.name_bytes += name.len();
        self.by_start.insert(start, (end, name.into()));
    }

    /// Removes what overlaps `start..end`: a function that lost a part of its code is gone.
    fn forget(&mut self, start: u64, end: u64) {
        while let Some((&first, (its_end, name))) = self.by_start.range(..end).next_back() {
            if *its_end <= start {
                return;
            }
            self.name_bytes -= name.len();
            self.by_start.remove(&first);
        }
    }
}

/// `start size name`; an empty function or a line of another kind is none.
fn parse_line(line: &[u8]) -> Option<(u64, u64, &[u8])> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (start, rest) = split_word(line)?;
    let (size, name) = split_word(rest)?;
    let (start, size) = (hex(start)?, hex(size)?);
    (size > 0 && !name.is_empty()).then_some((start, size, name))
}

fn split_word(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b' ')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// A hexadecimal number, with or without `0x`: writers differ.
fn hex(word: &[u8]) -> Option<u64> {
    let word = std::str::from_utf8(word).ok()?;
    let digits = word.strip_prefix("0x").unwrap_or(word);
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(())?;
    u64::from_str_radix(digits, 16).ok()
}

/// The pid of the process in its own, innermost pid namespace: what it names its file by (`NSpid` of
/// `proc_pid_status`, absent without CONFIG_PID_NS).
fn inner_pid(process: BorrowedFd<'_>) -> Option<u32> {
    use std::io::Read as _;
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let status = rustix::fs::openat(process, "status", flags, rustix::fs::Mode::empty()).ok()?;
    let mut text = Vec::new();
    File::from(status).take(64 << 10).read_to_end(&mut text).ok()?;
    // The task's name comes first and may hold anything; its newlines are escaped by the kernel.
    let text = String::from_utf8_lossy(&text);
    let of = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_ascii_whitespace().next_back()?.parse().ok()
    };
    of("NStgid:").or_else(|| of("Tgid:"))
}

/// Reads a perf map given in two pieces, and asks it for something.
#[cfg(any(test, fuzzing))]
pub(crate) fn check(first: &[u8], second: &[u8]) {
    let Ok(file) = File::open("/dev/null") else { return };
    let mut map = PerfMap::from_file(file);
    map.take(first);
    map.take(second);
    let mut end = 0;
    for (&start, (function_end, _)) in &map.functions.by_start {
        assert!(start >= end, "functions overlap at {start:#x}");
        end = *function_end;
    }
    let _ = map.begins_in(0..u64::MAX);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    impl PerfMap {
        /// A perf map with this text, for the tests of its users.
        pub fn of_text(text: &str) -> Self {
            map(text.as_bytes()).0
        }
    }

    fn map(text: &[u8]) -> (PerfMap, File) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = file.reopen().unwrap();
        writer.write_all(text).unwrap();
        (PerfMap::from_file(file.reopen().unwrap()), writer)
    }

    #[test]
    fn names_are_found_by_any_address_inside() {
        let (mut map, _writer) = map(b"7f10 20 JS:*leak /srv/app.js:12:3\n0x7f40 8 py::f:/x y.py\n");
        assert_eq!(map.name(0x7f0f), None);
        assert_eq!(map.name(0x7f10), Some(&b"JS:*leak /srv/app.js:12:3"[..]));
        assert_eq!(map.name(0x7f2f), Some(&b"JS:*leak /srv/app.js:12:3"[..]));
        assert_eq!(map.name(0x7f30), None);
        assert_eq!(map.name(0x7f47), Some(&b"py::f:/x y.py"[..]));
    }

    #[test]
    fn later_code_replaces_what_it_overlaps_and_growth_is_read() {
        let (mut map, mut writer) = map(b"100 10 a\n110 10 b\n120 10 c\n1");
        assert_eq!(map.name(0x11f), Some(&b"b"[..]));
        writer.write_all(b"18 10 d\n").unwrap();
        assert_eq!(map.name(0x118), Some(&b"d"[..]));
        assert_eq!(map.name(0x110), None);
        assert_eq!(map.name(0x128), None);
        assert_eq!(map.name(0x10f), Some(&b"a"[..]));
        assert_eq!(map.bytes(), 2);
        writer.set_len(0).unwrap();
        assert_eq!(map.name(0x10f), None);
        assert_eq!(map.bytes(), 0);
    }

    #[test]
    fn lines_that_are_no_functions_are_skipped() {
        for line in ["", "10", "10 20", "10 0 f", "+1 2 f", "zz 2 f", "ffffffffffffffff 2 f", "1 2 "] {
            let (mut map, _writer) = map(format!("{line}\n").as_bytes());
            assert_eq!(map.name(1), None, "{line}");
            assert_eq!(map.name(u64::MAX), None, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn functions_never_overlap(lines in proptest::collection::vec((0_u64..64, 0_u64..16), 0..40)) {
            let mut functions = Functions::default();
            for (start, size) in &lines {
                functions.add_line(format!("{start:x} {size:x} f{start}").as_bytes());
            }
            let mut last = 0;
            for (&start, (end, _)) in &functions.by_start {
                assert!(start >= last && *end > start);
                last = *end;
            }
            if let Some(&(start, size)) = lines.iter().rev().find(|line| line.1 > 0) {
                assert_eq!(functions.find(start + size - 1), Some(format!("f{start}").as_bytes()));
            }
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let (mut map, _writer) = map(&bytes);
            let _ = map.name(0);
        }
    }
}
