//! The program of the tests that holds sockets, in a network namespace of its own.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cargo::{root, target_dir};

/// Loopback, and local ports for 51,000 connections to each destination. Then the program, under the same pid.
const IN_THE_NAMESPACE: &str = "ip link set lo up && \
    echo 10000 60999 > /proc/sys/net/ipv4/ip_local_port_range && exec \"$0\"";

/// A running one. Dropping it ends it, its children and its namespace.
#[derive(Debug)]
pub struct Program {
    child: Child,
    input: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Program {
    /// Compiles and starts it.
    pub fn start() -> Result<Self> {
        let program = compiled()?;
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", IN_THE_NAMESPACE])
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start unshare (util-linux)")?;
        let input = child.stdin.take().context("stdin")?;
        let answers = BufReader::new(child.stdout.take().context("stdout")?).lines();
        Ok(Self { child, input, answers })
    }

    /// Gives it a command, and waits for its answer.
    pub fn tell(&mut self, command: &str) -> Result<Value> {
        writeln!(self.input, "{command}")?;
        let line = self.answers.next().context("the program with the sockets has ended")??;
        serde_json::from_str(&line).with_context(|| format!("the program said {line:?}"))
    }

    /// Its pid, and a name for its network namespace.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Its children are told by the kernel.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn compiled() -> Result<PathBuf> {
    let source = root()?.join("tests/programs/leaker.c");
    let program = target_dir()?.join("bench-sockets");
    let status = Command::new("cc").args(["-O2", "-o"]).args([&program, &source]).status();
    ensure!(status.context("cannot run cc")?.success(), "cc failed");
    Ok(program)
}
