//! Files that a command writes at its end: promised before it starts, so that nobody traces for an hour to be told
//! that the directory does not exist, and each there whole or not at all.
//!
//! A tracer that was started with sudo gives up root's power over other people's directories as soon as its
//! programs are attached. The thread here is started before that and keeps that power, and nothing else.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use caps::{Capability, CapsHashSet};

use super::Advice as _;
use crate::inventory::worker::Worker;
use crate::settings::UsageError;
use crate::text;

/// A place to which files will be written.
#[derive(Debug)]
pub struct Promise {
    path: PathBuf,
    files: Worker,
}

impl Promise {
    /// One file, which may exist and is replaced at once when the new one is complete. To be called while the
    /// privileges are still there.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn file(path: &Path) -> anyhow::Result<Self> {
        let path = target(path)?;
        let (dir, _) = split(&path)?;
        try_out(dir, &path)?;
        Self::start(path)
    }

    /// Files in a directory, which is made if it is not there. It must not hold files with the same extension: those
    /// of an earlier run could not be told from those of this one.
    ///
    /// # Errors
    /// When nothing could be written there.
    pub fn directory(path: &Path, extension: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot make the directory {}", shown(path)))?;
        let entries =
            fs::read_dir(path).with_context(|| format!("cannot read the directory {}", shown(path)))?;
        for entry in entries {
            let name = PathBuf::from(entry.context("cannot read a directory")?.file_name());
            if name.extension().is_some_and(|other| other == extension) {
                return Err(anyhow!("{} already holds {}", shown(path), shown(&name)))
                    .advise(format!("name another directory, or move its .{extension} files away"));
            }
        }
        try_out(path, &path.join(format!("probe.{extension}")))?;
        Self::start(path.to_owned())
    }

    fn start(path: PathBuf) -> anyhow::Result<Self> {
        let keep = CapsHashSet::from([Capability::CAP_DAC_OVERRIDE, Capability::CAP_FOWNER]);
        Ok(Self { path, files: Worker::files(keep)? })
    }

    /// Writes the one file.
    ///
    /// # Errors
    /// When it cannot be written; what was there before is then untouched.
    pub fn write(&self, bytes: Vec<u8>) -> anyhow::Result<()> {
        self.hand_over(vec![(self.path.clone(), bytes)])
    }

    /// Writes files into the directory.
    ///
    /// # Errors
    /// When one cannot be written: those before it have been.
    pub fn write_all(&self, files: Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
        self.hand_over(files.into_iter().map(|(name, bytes)| (self.path.join(name), bytes)).collect())
    }

    fn hand_over(&self, files: Vec<(PathBuf, Vec<u8>)>) -> anyhow::Result<()> {
        self.files.ask(move || files.iter().try_for_each(|(path, bytes)| replace(path, bytes))).wait()?
    }
}

/// Where a file would really be: behind a link, and not a device or a directory.
fn target(path: &Path) -> anyhow::Result<PathBuf> {
    let what = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(path.to_owned()),
        Err(error) => return Err(error).context(format!("cannot write {}", shown(path))),
        Ok(metadata) if metadata.is_file() => {
            return fs::canonicalize(path).with_context(|| format!("cannot write {}", shown(path)));
        }
        Ok(metadata) if metadata.is_dir() => "a directory",
        Ok(_) => "no regular file",
    };
    bail!(UsageError::new(format!("{} is {what}", shown(path))).hint("name a file, such as report.html"))
}

fn split(path: &Path) -> anyhow::Result<(&Path, OsString)> {
    let name = path.file_name().with_context(|| format!("{} is no name of a file", shown(path)))?.to_owned();
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((dir, name))
}

/// Makes a file of the kind that will be made later, and takes it away again: until then nothing is left behind,
/// however the program ends.
fn try_out(dir: &Path, path: &Path) -> anyhow::Result<()> {
    let (probe, file) =
        create_beside(path).with_context(|| format!("cannot write to {}", shown(dir))).advise(
            "nothing was traced: name a place in a directory that exists and that takes files of yours",
        )?;
    drop(file);
    fs::remove_file(&probe).with_context(|| format!("cannot remove {}", shown(&probe)))
}

/// A new file that can be renamed to `path`.
fn create_beside(path: &Path) -> anyhow::Result<(PathBuf, File)> {
    let (dir, name) = split(path)?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    let path = dir.join(hidden);
    let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    Ok((path, file))
}

/// Puts a file in the place of another, or of none. A reader sees the old one or the new one.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}", shown(path));
    let (temporary, mut file) = create_beside(path).with_context(failed)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| {
        drop(file);
        fs::rename(&temporary, path)
    });
    written
        .inspect_err(|_| {
            // The first error is the one to tell.
            let _ = fs::remove_file(&temporary);
        })
        .with_context(failed)
}

fn shown(path: &Path) -> String {
    text::escape(path.as_os_str().as_encoded_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("directory");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("report.html");
        fs::write(&path, "old").expect("written");
        let promise = Promise::file(&path).expect("promised");
        assert_eq!(fs::read(&path).expect("there"), b"old", "a promise changes nothing");
        promise.write(b"new".to_vec()).expect("written");
        assert_eq!(fs::read(&path).expect("there"), b"new");
        assert_eq!(names(dir.path()), ["report.html"]);
    }

    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().expect("directory");
        let (file, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&file, "old").expect("written");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        Promise::file(&link).expect("promised").write(b"new".to_vec()).expect("written");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(fs::read(&file).expect("there"), b"new");
    }

    #[test]
    fn what_cannot_be_written_is_refused_at_once() {
        let dir = tempfile::tempdir().expect("directory");
        for (path, words) in [
            (dir.path().join("missing/report.html"), "cannot write to"),
            (dir.path().to_owned(), "is a directory"),
            (PathBuf::from("/dev/null"), "no regular file"),
            (PathBuf::from("/proc/report.html"), "cannot write to /proc"),
        ] {
            let error = Promise::file(&path).expect_err("refused").to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_directory_is_made_and_must_not_hold_files_of_an_earlier_run() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("a/b");
        let promise = Promise::directory(&path, "hlog").expect("promised");
        assert!(names(&path).is_empty());
        promise.write_all(vec![("TIME_WAIT.hlog".to_owned(), b"x".to_vec())]).expect("written");
        assert_eq!(names(&path), ["TIME_WAIT.hlog"]);
        let error = Promise::directory(&path, "hlog").expect_err("refused").to_string();
        assert!(error.contains("already holds TIME_WAIT.hlog"), "{error}");
    }
}
