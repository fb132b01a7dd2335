//! Pseudo-terminals. `cargo xtask bench` uses this file as well: it cannot depend on this crate, which is built from what
//! xtask builds.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A pseudo-terminal of so many columns and rows: this side, and that of a program.
///
/// # Errors
/// When there is none to be had.
pub fn open(columns: u16, rows: u16) -> Result<(File, OwnedFd)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    let master = File::from(master);
    tcsetwinsize(&master, size(columns, rows))?;
    Ok((master, slave))
}

/// As a terminal keeps it.
#[must_use]
pub fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// A program with this terminal, as the leader of its session: signals of keys and of job control come from there.
///
/// # Errors
/// When there is no descriptor left.
pub fn command(slave: &OwnedFd, program: &Path, args: &[&str]) -> Result<Command> {
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg(program).args(args);
    command.env("TERM", "xterm-256color").env("LANG", "C.UTF-8");
    command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave.try_clone()?);
    Ok(command)
}
