//! A program in a terminal that is read as fast as it writes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

#[path = "../../../tests/src/pty.rs"]
mod pair;

/// What each frame begins with, for terminals that can show one at once.
const FRAME: &[u8] = b"\x1b[?2026h";
/// How long the program may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was written to the terminal so far.
#[derive(Debug, Default)]
pub struct Written {
    bytes: AtomicU64,
    frames: AtomicU64,
}

impl Written {
    /// Bytes, and frames among them.
    pub fn so_far(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.frames.load(Ordering::Relaxed))
    }

    fn read(&self, mut from: File) {
        let mut bytes = [0; 64 << 10];
        // Bytes of the mark that have come: it may come in two parts.
        let mut matched = 0;
        // Ends with an error when the program is gone.
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            self.bytes.fetch_add(count as u64, Ordering::Relaxed);
            for &byte in &bytes[..count] {
                matched = if byte == FRAME[matched] { matched + 1 } else { usize::from(byte == FRAME[0]) };
                if matched == FRAME.len() {
                    self.frames.fetch_add(1, Ordering::Relaxed);
                    matched = 0;
                }
            }
        }
    }
}

/// A program and its terminal. Dropping it kills the program.
#[derive(Debug)]
pub struct OnTerminal {
    master: File,
    child: Child,
    written: Arc<Written>,
}

impl OnTerminal {
    /// Starts it in a terminal of so many columns and rows.
    pub fn start(program: &Path, args: &[&str], (columns, rows): (u16, u16)) -> Result<Self> {
        let (master, slave) = pair::open(columns, rows)?;
        let mut command = pair::command(&slave, program, args)?;
        let child = command.spawn().context("cannot start setsid (util-linux)")?;
        let written = Arc::new(Written::default());
        let (from, to) = (master.try_clone()?, Arc::clone(&written));
        thread::Builder::new().name("terminal".to_owned()).spawn(move || to.read(from))?;
        Ok(Self { master, child, written })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written.
    pub fn written(&self) -> &Written {
        &self.written
    }

    /// Types keys.
    pub fn keys(&mut self, keys: &str) -> Result<()> {
        self.master.write_all(keys.as_bytes()).context("cannot type")
    }

    /// Ends it as a person does.
    pub fn quit(mut self) -> Result<()> {
        self.keys("q")?;
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the program on the terminal failed: {status}");
                return Ok(());
            }
            if asked.elapsed() > PATIENCE {
                bail!("the program on the terminal did not end within {PATIENCE:?} of q");
            }
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // Ended already, unless something failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
