//! Processes of their own: this test binary again, in another role, spoken to by lines.

use std::ffi::CString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::sockets::read_eof;
use crate::spawn;

/// Set in the environment of a helper: its role.
const ROLE: &str = "TCPTRACE_TEST_HELPER";
/// Set in the environment of a helper: who must still be there.
const PARENT: &str = "TCPTRACE_TEST_PARENT";

/// Task name of every helper.
pub const COMM: &str = "test-helper";

/// What a helper process does.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// Listens on loopback, prints its port, accepts one connection, reads it to EOF, prints `eof`, waits for a
    /// line, and exits without closing anything.
    HoldUntilExit,
    /// Does nothing but hold what it was given, until it is killed.
    Hold,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::HoldUntilExit => "hold-until-exit",
            Self::Hold => "hold",
        }
    }
}

/// What starts one, for those that speak to it in their own way or not at all.
///
/// # Errors
/// When this program's own file cannot be found.
pub fn command(role: Role) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(ROLE, role.name()).env(PARENT, std::process::id().to_string());
    Ok(command)
}

/// A running helper. Dropping it kills the process.
#[derive(Debug)]
pub struct Helper {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Helper {
    /// Starts one in the calling thread's network namespace.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(role: Role) -> Result<Self> {
        let mut command = command(role)?;
        let mut child = spawn::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let input = child.stdin.take().context("stdin")?;
        let output = BufReader::new(child.stdout.take().context("stdout")?);
        Ok(Self { child, input, output })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its next line.
    ///
    /// # Errors
    /// When it has ended.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("the helper ended: {}", self.child.wait()?);
        }
        Ok(line.trim_end().to_owned())
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn go_on(&mut self) -> Result<()> {
        Ok(self.input.write_all(b"\n")?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it failed.
    pub fn wait(&mut self) -> Result<()> {
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "the helper failed: {status}");
        Ok(())
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// When it has ended before.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Becomes a helper and exits, when this process was started as one.
///
/// # Errors
/// When the helper fails at its task.
pub fn become_helper_if_asked() -> Result<()> {
    let Ok(role) = std::env::var(ROLE) else { return Ok(()) };
    tcptrace::sandbox::end_with_parent(std::env::var(PARENT)?.parse()?)?;
    rustix::thread::set_name(&CString::new(COMM)?)?;
    match role.as_str() {
        "hold-until-exit" => hold_until_exit()?,
        "hold" => loop {
            std::thread::park();
        },
        _ => bail!("unknown helper {role:?}"),
    }
    std::process::exit(0);
}

fn hold_until_exit() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?.port());
    let (mut stream, _) = listener.accept()?;
    read_eof(&mut stream)?;
    println!("eof");
    std::io::stdin().read_line(&mut String::new())?;
    // exit() runs no destructors: it is the kernel that closes the socket.
    std::process::exit(0);
}
