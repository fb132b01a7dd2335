//! The root file system of a machine, as the kernel unpacks it from memory: a cpio archive in the "newc" format
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::programs::Programs;

/// Where the kernel mounts or `vm_init` expects something.
const DIRECTORIES: [&str; 6] = ["dev", "proc", "sys", "run", "tmp", "etc"];

/// A machine's files: the programs, the modules to load, and the arguments of the tests.
pub fn of(programs: &Programs, modules: &[PathBuf], filter: Option<&str>) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.directory(Path::new(directory))?;
    }
    for (path, file) in programs.files() {
        archive.file(Path::new(path), &read(file)?, 0o755)?;
    }
    for (number, module) in modules.iter().enumerate() {
        let name = module.file_name().context("a module has a name")?.to_string_lossy();
        archive.file(&Path::new("modules").join(format!("{number}-{name}")), &read(module)?, 0o644)?;
    }
    // One after the other: what is idle costs nothing here, and what is busy would stand in each other's way.
    let arguments =
        filter.map_or_else(|| "--test-threads=1".to_owned(), |name| format!("--test-threads=1\n{name}"));
    archive.file(Path::new("etc/arguments"), arguments.as_bytes(), 0o644)?;
    archive.finish()
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| file.display().to_string())
}

/// An archive in the making.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<PathBuf>,
    entries: u32,
}

impl Archive {
    /// A directory, and those above it.
    fn directory(&mut self, path: &Path) -> Result<()> {
        let above: Vec<_> = path.ancestors().filter(|above| !above.as_os_str().is_empty()).collect();
        for directory in above.into_iter().rev() {
            if self.directories.insert(directory.to_path_buf()) {
                self.entry(&directory.to_string_lossy(), &[], 0o040_755)?;
            }
        }
        Ok(())
    }

    /// A file with its permissions, and the directories above it.
    fn file(&mut self, path: &Path, content: &[u8], permissions: u32) -> Result<()> {
        if let Some(above) = path.parent() {
            self.directory(above)?;
        }
        self.entry(&path.to_string_lossy(), content, 0o100_000 | permissions)
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", &[], 0)?;
        Ok(self.bytes)
    }

    /// A header of thirteen numbers in hexadecimal, the name, the content, each padded to four bytes.
    fn entry(&mut self, name: &str, content: &[u8], mode: u32) -> Result<()> {
        self.entries += 1;
        let (inode, links, size) = (self.entries, 1, u32::try_from(content.len())?);
        let name_size = u32::try_from(name.len() + 1)?;
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check.
        let header = [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        self.bytes.extend(header.map(|field| format!("{field:08x}")).concat().bytes());
        self.bytes.extend(name.bytes().chain([0]));
        self.pad();
        self.bytes.extend(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_headers_names_and_contents_on_words() {
        let mut archive = Archive::default();
        archive.file(Path::new("bin/live"), b"12345", 0o755).unwrap();
        archive.file(Path::new("bin/other"), b"", 0o644).unwrap();
        let bytes = archive.finish().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let starts: Vec<_> = text.match_indices("070701").map(|(at, _)| at).collect();
        // bin once, two files, the trailer.
        assert_eq!(starts.len(), 4);
        assert!(starts.iter().all(|at| at % 4 == 0) && bytes.len() % 4 == 0);
        assert!(text.starts_with("07070100000001000041ed"), "{text}");
        let file = &text[starts[1]..];
        assert_eq!(&file[14..22], "000081ed");
        assert_eq!(&file[54..62], "00000005");
        assert_eq!(&file[94..102], "00000009");
        assert_eq!(&file[110..119], "bin/live\0");
        assert_eq!(&file[120..128], "12345\0\0\0");
    }
}
