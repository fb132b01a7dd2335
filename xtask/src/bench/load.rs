//! The load of benchmarks: tcptrace's own churn, in a process and a network namespace of its own.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, available_parallelism};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;

/// A process that is ready to make connections; killed when dropped.
#[derive(Debug)]
pub struct Load {
    child: Child,
    input: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

/// What it has done.
#[derive(Clone, Copy, Debug)]
pub struct Churned {
    /// Connections made.
    pub connections: f64,
    /// In this time, nanoseconds.
    pub elapsed_ns: f64,
}

impl Load {
    /// Connections as fast as they can be made, with these arguments of its own. Waits until it has made its namespace.
    pub fn start(binary: &Path, threads: u16, args: &[&str]) -> Result<Self> {
        Self::start_as("churn", binary, threads, args)
    }

    /// So many connections a second, for so long.
    pub fn steady(binary: &Path, threads: u16, rate: u32, lasts: Duration) -> Result<Self> {
        let (rate, lasts_ms) = (rate.to_string(), lasts.as_millis().to_string());
        Self::start_as("steady", binary, threads, &["--rate", &rate, "--hold-ms", &lasts_ms])
    }

    fn start_as(role: &str, binary: &Path, threads: u16, args: &[&str]) -> Result<Self> {
        let mut child = Command::new(binary)
            .args(["__workload", role, "--threads", &threads.to_string()])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the load")?;
        let input = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("stdout")?).lines();
        let mut load = Self { child, input, answers };
        load.answer()?;
        Ok(load)
    }

    /// Gives the starting sign.
    pub fn go(&mut self) -> Result<()> {
        Ok(self.input.as_mut().context("stdin")?.write_all(b"go\n")?)
    }

    /// Waits until it has made its connections. Its namespace, and the TIME_WAITs in it, stay until [`Self::end`].
    pub fn result(&mut self) -> Result<Churned> {
        let result = self.answer()?;
        let number = |key: &str| result[key].as_f64().with_context(|| format!("the load said {result}"));
        Ok(Churned { connections: number("connections")?, elapsed_ns: number("elapsed_ns")? })
    }

    /// The same, with something else to do now and then.
    pub fn result_while(&mut self, every: Duration, meanwhile: impl Fn()) -> Result<Churned> {
        thread::scope(|scope| {
            let (done, waited) = mpsc::channel();
            let result = scope.spawn(move || {
                let result = self.result();
                // Also when it failed: the other side only wants to know that it is over.
                let _ = done.send(());
                result
            });
            while waited.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                meanwhile();
            }
            result.join().map_err(|_| anyhow!("waiting for the load panicked"))?
        })
    }

    /// Lets it end, and its namespace with it.
    pub fn end(mut self) -> Result<()> {
        self.input = None;
        let status = self.child.wait()?;
        ensure!(status.success(), "the load failed: {status}");
        Ok(())
    }

    fn answer(&mut self) -> Result<Value> {
        let line = self.answers.next().context("the load ended without an answer")??;
        serde_json::from_str(&line).with_context(|| format!("the load said {line:?}"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Ended already, unless something failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processors of this machine.
pub fn cores() -> Result<u16> {
    Ok(u16::try_from(available_parallelism().context("cannot tell the number of cores")?.get())?)
}
