//! Files that the screen writes: exports and recordings.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use caps::CapsHashSet;
use jiff::Zoned;

use crate::inventory::worker::{Worker, WorkerError};

/// Starts the thread that makes them, which no other thread can once tracing has begun. It keeps no capability: the
/// files are those that the user could make.
///
/// # Errors
/// When there is no thread to be had.
pub fn maker() -> Result<Worker, WorkerError> {
    Worker::files(CapsHashSet::new())
}

/// Creates a file that was never there before, by the thread that can. Waits for it: not for async contexts.
///
/// # Errors
/// When there is no directory that takes the file.
pub fn create_by(
    maker: &Worker,
    what: &'static str,
    extension: &'static str,
    now: Zoned,
) -> io::Result<(PathBuf, File)> {
    maker.ask(move || create(what, extension, &now)).wait().map_err(io::Error::other)?
}

/// Creates `tcptrace-WHAT-TIME.EXTENSION`, which never was there before and only its owner can read: in the
/// working directory; or, where that takes no file of ours, in the directory for temporary files. (A tracer that
/// was started with sudo has given up root's power over other people's directories.)
///
/// # Errors
/// When neither takes it; the error is that of the first.
fn create(what: &str, extension: &str, now: &Zoned) -> io::Result<(PathBuf, File)> {
    let here = std::env::current_dir()?;
    create_in(&[here, std::env::temp_dir()], what, extension, now)
}

fn create_in(dirs: &[PathBuf], what: &str, extension: &str, now: &Zoned) -> io::Result<(PathBuf, File)> {
    let stem = format!("tcptrace-{what}-{}", now.strftime("%Y%m%d-%H%M%S"));
    let mut first_error = None;
    for dir in dirs {
        match create_new(dir, &stem, extension) {
            Ok(created) => return Ok(created),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| io::Error::other("no directory to write to")))
}

/// Files within one second at most: nobody presses a key faster.
const MOST_A_SECOND: u32 = 100;

fn create_new(dir: &Path, stem: &str, extension: &str) -> io::Result<(PathBuf, File)> {
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for number in 0..MOST_A_SECOND {
        let number = if number == 0 { String::new() } else { format!("-{number}") };
        let path = dir.join(format!("{stem}{number}.{extension}"));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// A path as it may be shown.
#[must_use]
pub fn shown(path: &Path) -> String {
    crate::text::escape(path.as_os_str().as_encoded_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_overwritten_and_there_is_a_second_choice() {
        let dir = tempfile::tempdir().unwrap();
        let now: Zoned = "2026-01-02T03:04:05[UTC]".parse().unwrap();
        let dirs = [dir.path().join("no such directory"), dir.path().to_owned()];
        let names: Vec<_> = (0..3)
            .map(|_| create_in(&dirs, "leaks", "jsonl", &now).unwrap().0)
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names[0], "tcptrace-leaks-20260102-030405.jsonl");
        assert_eq!(names[2], "tcptrace-leaks-20260102-030405-2.jsonl");
        let error = create_in(&dirs[..1], "leaks", "jsonl", &now).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
