//! What an experiment has changed, on disk before it is changed: so that even after SIGKILL or a crash the next
//! one who looks finds out, and can put it back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where journals are kept: gone after a reboot, as the changed values are.
const DIR: &str = "/run/tcptrace";

/// One sysctl that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Dotted name.
    pub name: String,
    /// What it was.
    pub original: String,
    /// Every value that the experiment gives it.
    pub given: Vec<String>,
}

/// The journal of one experiment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// The process that made it.
    pub pid: u32,
    /// Its start time, clock ticks since boot: pids are reused.
    pub started: u64,
    /// Network namespace of the sysctls (inode number).
    pub netns: u32,
    /// What is changed.
    pub changed: Vec<Changed>,
}

/// A journal on disk; removed by [`Entry::remove`] once everything is as it was.
#[derive(Debug)]
pub struct Entry {
    path: PathBuf,
    /// Its content.
    pub journal: Journal,
}

impl Entry {
    /// Writes the journal so that it survives whatever happens next.
    ///
    /// # Errors
    /// When it cannot be written: then nothing must be changed.
    pub fn create(journal: Journal) -> io::Result<Self> {
        Self::create_in(Path::new(DIR), journal)
    }

    fn create_in(dir: &Path, journal: Journal) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let path = dir.join(format!("experiment-{}.json", journal.pid));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(&serde_json::to_vec(&journal)?)?;
        file.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(Self { path, journal })
    }

    /// Forgets it: everything is as it was.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(self.path)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Journals whose experiment is no longer running: it was killed before it could restore.
///
/// # Errors
/// When the directory cannot be read. Files that are no journals are passed over.
pub fn left_behind() -> io::Result<Vec<Entry>> {
    left_in(Path::new(DIR), &started)
}

fn left_in(dir: &Path, started: &dyn Fn(u32) -> Option<u64>) -> io::Result<Vec<Entry>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let Ok(bytes) = fs::read(&path) else { continue };
        let Ok(journal) = serde_json::from_slice::<Journal>(&bytes) else { continue };
        if started(journal.pid) != Some(journal.started) {
            found.push(Entry { path, journal });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Start time of a process that exists.
#[must_use]
pub fn started(pid: u32) -> Option<u64> {
    crate::inventory::process::identity(pid).map(|(_, started)| started)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(pid: u32) -> Journal {
        Journal {
            pid,
            started: 7,
            netns: 4_026_531_840,
            changed: vec![Changed {
                name: "net.ipv4.tcp_fin_timeout".into(),
                original: "60".into(),
                given: vec!["15".into()],
            }],
        }
    }

    #[test]
    fn a_journal_is_found_when_its_process_has_gone_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let running = Entry::create_in(dir.path(), journal(10)).unwrap();
        Entry::create_in(dir.path(), journal(11)).unwrap();
        fs::write(dir.path().join("experiment-12.json"), "{\"pid\":").unwrap();
        let now = |pid| (pid == 10).then_some(7);
        let left = left_in(dir.path(), &now).unwrap();
        assert_eq!(left.iter().map(|entry| entry.journal.clone()).collect::<Vec<_>>(), [journal(11)]);
        // The pid is in use again, by somebody else.
        assert_eq!(left_in(dir.path(), &|_| Some(8)).unwrap().len(), 2);
        running.remove().unwrap();
        assert_eq!(left_in(dir.path(), &|_| None).unwrap().len(), 1);
        assert!(left_in(&dir.path().join("none"), &now).unwrap().is_empty());
    }
}
