//! A terminal that a program runs in, and that can be looked at: a pseudo-terminal behind a parser of what is
//! written to it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal};
use rustix::termios::{Termios, tcgetattr, tcsetwinsize};

use crate::clock::{sleep_ms, wait_until};
use crate::{pty, spawn};

/// How long a screen is waited for on a machine where everything else runs, too.
pub const LIMIT: Duration = Duration::from_secs(40);

/// A running program and its terminal. Dropping it kills the program.
pub struct Terminal {
    master: File,
    /// Kept open, so that the terminal and its settings outlive the program.
    _slave: OwnedFd,
    child: Child,
    ended: Option<ExitStatus>,
    written: Arc<Mutex<Written>>,
    before: Termios,
}

/// What the program wrote.
struct Written {
    parser: vt100::Parser,
    bytes: Vec<u8>,
    /// How many of them the parser has had.
    shown: usize,
}

/// Begins and ends a frame that is to be shown as a whole (synchronized output, DEC private mode 2026).
const FRAME: (&[u8], &[u8]) = (b"\x1b[?2026h", b"\x1b[?2026l");

impl Written {
    /// Shows what is complete: a person never sees the half of a frame either, and whoever waits for one thing on the
    /// screen takes the rest to belong to it.
    fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let waiting = &self.bytes[self.shown..];
        let complete = match (last(waiting, FRAME.0), last(waiting, FRAME.1)) {
            (Some(begun), ended) if ended.is_none_or(|ended| ended < begun) => begun,
            // The beginning of a frame's mark may have come, and not its end.
            _ => {
                waiting.len()
                    - (1..FRAME.0.len()).rev().find(|&n| waiting.ends_with(&FRAME.0[..n])).unwrap_or(0)
            }
        };
        self.parser.process(&waiting[..complete]);
        self.shown += complete;
    }
}

/// Where the last of these marks begins.
fn last(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).rposition(|window| window == mark)
}

impl Terminal {
    /// Starts a program in a terminal of its own, as the leader of its session.
    ///
    /// # Errors
    /// When there is no pseudo-terminal, or the program cannot be started.
    pub fn start(
        program: &Path,
        args: &[&str],
        vars: &[(&str, &str)],
        (columns, rows): (u16, u16),
    ) -> Result<Self> {
        let (master, slave) = pty::open(columns, rows)?;
        let before = tcgetattr(&slave)?;
        let mut command = pty::command(&slave, program, args)?;
        for name in
            ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLORTERM", "LC_ALL", "LC_CTYPE", "COLUMNS", "LINES"]
        {
            command.env_remove(name);
        }
        command.env("TZ", "UTC").envs(vars.iter().copied());
        let child = spawn::start(&mut command).context("cannot start setsid (util-linux)")?;
        let parser = vt100::Parser::new(cells(rows), cells(columns), 0);
        let written = Arc::new(Mutex::new(Written { parser, bytes: Vec::new(), shown: 0 }));
        let (mut from, to) = (master.try_clone()?, Arc::clone(&written));
        thread::Builder::new().name("terminal".to_owned()).spawn(move || {
            let mut bytes = [0; 16 << 10];
            // Ends with an error when the last descriptor of the other side is closed.
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
                to.add(&bytes[..count]);
            }
        })?;
        Ok(Self { master, _slave: slave, child, ended: None, written, before })
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the program.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(rustix::process::kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Types keys.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub fn keys(&mut self, keys: &str) -> Result<()> {
        self.master.write_all(keys.as_bytes()).context("cannot type")
    }

    /// Makes the window larger or smaller.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn resize(&mut self, columns: u16, rows: u16) -> Result<()> {
        self.written().parser.screen_mut().set_size(cells(rows), cells(columns));
        Ok(tcsetwinsize(&self.master, pty::size(columns, rows))?)
    }

    /// The text on it.
    #[must_use]
    pub fn text(&self) -> String {
        self.written().parser.screen().contents()
    }

    /// Everything that was written to it.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.written().bytes.clone()
    }

    /// Looks at the screen.
    pub fn look<T>(&self, at: impl FnOnce(&vt100::Screen) -> T) -> T {
        at(self.written().parser.screen())
    }

    /// Waits until what it shows is as wanted, and gives it.
    ///
    /// # Errors
    /// After a long time, with what it shows instead.
    pub fn shows(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        wait_until(what, LIMIT, || wanted(&self.text()))
            .map_err(|error| anyhow::anyhow!("{error}:\n{}", self.text()))?;
        Ok(self.text())
    }

    /// Waits for a text.
    ///
    /// # Errors
    /// After a long time, with what it shows instead.
    pub fn says(&self, text: &str) -> Result<String> {
        self.shows(text, |shown| shown.contains(text))
    }

    /// Waits for the end of the program.
    ///
    /// # Errors
    /// After a long time, with what the screen shows.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        let mut status = None;
        let child = &mut self.child;
        let waited = wait_until("the end of the program", LIMIT, || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        });
        waited.map_err(|error| anyhow::anyhow!("{error}:\n{}", self.text()))?;
        let status = status.context("waited for")?;
        self.ended = Some(status);
        // What it wrote last may still be on its way through the terminal.
        let mut length = usize::MAX;
        while std::mem::replace(&mut length, self.bytes().len()) != length {
            sleep_ms(50);
        }
        Ok(status)
    }

    /// The terminal is as it was: its settings, the usual screen, a cursor, no mouse, no brackets around what is
    /// pasted.
    ///
    /// # Errors
    /// What is not as it was.
    pub fn is_as_before(&self) -> Result<()> {
        let now = tcgetattr(&self.master)?;
        ensure!(
            settings(&now) == settings(&self.before),
            "the terminal's settings: {now:?} and before {:?}",
            self.before
        );
        self.look(|screen| {
            ensure!(!screen.alternate_screen(), "it still shows the alternate screen");
            ensure!(!screen.hide_cursor(), "its cursor is hidden");
            ensure!(!screen.bracketed_paste(), "pastes are still bracketed");
            ensure!(
                screen.mouse_protocol_mode() == vt100::MouseProtocolMode::None,
                "the mouse is still reported"
            );
            Ok(())
        })
    }

    /// It is in raw mode and shows the alternate screen.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.look(|screen| screen.alternate_screen() && screen.hide_cursor())
            && tcgetattr(&self.master).is_ok_and(|now| settings(&now) != settings(&self.before))
    }
}

/// A status that is an exit, and not a signal.
#[must_use]
pub fn exit_code(status: ExitStatus) -> Option<i32> {
    if status.signal().is_some() { None } else { status.code() }
}

fn settings(termios: &Termios) -> String {
    format!("{termios:?}")
}

/// A window has one cell at least.
fn cells(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap_or(NonZeroU16::MIN)
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_half_of_a_frame_is_shown() {
        let mut written =
            Written { parser: vt100::Parser::new(cells(2), cells(20), 0), bytes: Vec::new(), shown: 0 };
        let mut after = |bytes: &[u8]| {
            written.add(bytes);
            written.parser.screen().contents()
        };
        assert_eq!(after(b"plain"), "plain");
        assert_eq!(after(b"\x1b[?20"), "plain");
        assert_eq!(after(b"26h\rfirst"), "plain");
        assert_eq!(after(b" frame\x1b[?2026l"), "first frame");
        assert_eq!(after(b"\x1b[?2026h\rsecond frame"), "first frame");
        assert_eq!(after(b"\x1b[?2026l\x1b[?2026h\rthird"), "second frame");
    }
}
