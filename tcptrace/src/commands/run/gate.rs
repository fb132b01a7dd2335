//! Holds a command back until tracing has begun.
//!
//! Tracing gives up privileges, and a process started afterwards would have lost them, too. So a process is
//! started before: it stops itself, and becomes the command when it is told to continue.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::cli::hidden::ExecArgs;
use crate::commands::Exit;
use crate::sandbox::{Sandbox, end_with_parent};
use crate::text;

/// A command that waits, or runs.
pub struct Gate {
    child: Child,
    is_open: bool,
}

impl Gate {
    /// Starts the process, and returns when it has stopped.
    pub fn start(command: &[OsString], sandbox: Option<&Sandbox>) -> anyhow::Result<Self> {
        let mut own = Command::new(std::env::current_exe().context("cannot find the path of this program")?);
        own.arg("__gate").arg(std::process::id().to_string()).arg("--").args(command);
        let child = match sandbox {
            Some(sandbox) => sandbox.spawn(own)?,
            None => own.spawn().context("cannot start a process for the command")?,
        };
        let mut gate = Self { child, is_open: false };
        let stopped = waitpid(Some(gate.pid()?), WaitOptions::UNTRACED)
            .context("cannot wait for the process of the command")?;
        if !stopped.is_some_and(|(_, status)| status.stopped()) {
            // It was reaped just now: nothing is left to kill.
            gate.is_open = true;
            bail!("the process of the command ended before it began");
        }
        Ok(gate)
    }

    /// Of the command.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Of the command.
    pub fn pid(&self) -> anyhow::Result<Pid> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        id.context("the command has no process id")
    }

    /// Lets it become the command.
    pub fn open(&mut self) -> anyhow::Result<()> {
        kill_process(self.pid()?, Signal::CONT).context("cannot start the command")?;
        self.is_open = true;
        Ok(())
    }

    /// How it ended, once it has.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end where it has begun.
    pub fn wait(&mut self) -> io::Result<()> {
        if self.is_open { self.child.wait().map(drop) } else { Ok(()) }
    }
}

/// A command that never began leaves no process behind.
impl Drop for Gate {
    fn drop(&mut self) {
        if !self.is_open && self.child.kill().is_ok() {
            let _ = self.child.wait();
        }
    }
}

/// `__gate`: stops, then becomes the command. Ends with 127 when there is no such program and with 126 when it
/// cannot be executed, as shells do.
pub fn pass(args: &ExecArgs) -> anyhow::Result<Exit> {
    end_with_parent(args.parent)?;
    kill_process(rustix::process::getpid(), Signal::STOP)?;
    // From here on it is the user's process, and outlives whom it likes.
    rustix::process::set_parent_process_death_signal(None)?;
    let Some((program, rest)) = args.program.split_first() else { bail!("no command given") };
    let error = Command::new(program).args(rest).exec();
    eprintln!("tcptrace: error: cannot start {}: {error}", text::escape(program.as_encoded_bytes()));
    Ok(Exit::Status(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }))
}
