//! A running `tcptrace serve`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tcptrace::sandbox::Sandbox;
use tcptrace::workload::{Role, RoleArgs};

use crate::clock::wait_until;
use crate::{binary, spawn, web};

/// How long it may take to attach, or to end.
const AT_ONCE: Duration = Duration::from_secs(60);

/// The exporter. Dropping it kills the process.
#[derive(Debug)]
pub struct Exporter {
    child: Child,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Exporter {
    /// Starts one in the calling thread's namespace that traces `traced`, and waits until it does.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(traced: &Sandbox, port: u16, args: &[&str]) -> Result<Self> {
        Self::start_by(&[], binary::path(), traced, port, args)
    }

    /// The same by `setpriv` with these arguments: with other privileges than this process has.
    ///
    /// # Errors
    /// When it does not trace.
    pub fn start_by(
        setpriv: &[&str],
        program: &Path,
        traced: &Sandbox,
        port: u16,
        args: &[&str],
    ) -> Result<Self> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (listen, netns) = (addr.to_string(), traced.netns().to_string());
        let fixed = ["serve", "--listen", &listen, "--netns", &netns, "--inventory-interval", "1s"];
        let child = spawn::quiet_by(setpriv, program, &[&fixed, args].concat())?;
        let exporter = Self { child, addr };
        wait_until("the exporter", AT_ONCE, || {
            exporter.health().is_ok_and(|health| health["attached"] == true)
        })?;
        Ok(exporter)
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A page that is there.
    ///
    /// # Errors
    /// When it is not.
    pub fn page(&self, path: &str) -> Result<String> {
        let answer = web::get(self.addr, path, "")?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.body);
        Ok(answer.body)
    }

    /// `/healthz`.
    ///
    /// # Errors
    /// When it is not healthy.
    pub fn health(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.page("/healthz")?)?)
    }

    /// The value of a series of `/metrics`, written as there.
    ///
    /// # Errors
    /// When there is none.
    pub fn value(&self, series: &str) -> Result<f64> {
        let text = self.page("/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no {series}"))?.parse()?)
    }

    /// Series of a metric of `/metrics` that has the labels `comm`, `unit` and `container`: `comm` and value.
    ///
    /// # Errors
    /// When a value is no number.
    pub fn by_comm(&self, metric: &str) -> Result<Vec<(String, f64)>> {
        let text = self.page("/metrics")?;
        let lines = text.lines().filter_map(|line| line.strip_prefix(metric)?.strip_prefix("{comm=\""));
        let parse = |line: &str| -> Result<(String, f64)> {
            let (comm, rest) = line.split_once("\",unit=\"").with_context(|| line.to_owned())?;
            let value = rest.rsplit(' ').next().unwrap_or_default();
            Ok((comm.to_owned(), value.parse().with_context(|| line.to_owned())?))
        };
        lines.map(parse).collect()
    }

    /// A figure of a state at `/report`.
    ///
    /// # Errors
    /// When there is none.
    pub fn reported(&self, state: &str, phase: Option<&str>, figure: &str) -> Result<u64> {
        let text = self.page("/report")?;
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut found = lines.filter(|line| line["state"] == state && line["phase"].as_str() == phase);
        let line = found.next().with_context(|| format!("no report of {state}"))?;
        line["finished"][figure].as_u64().with_context(|| line.to_string())
    }

    /// SIGTERM, and how it ended.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(mut self) -> Result<ExitStatus> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("pid")?;
        kill_process(pid, Signal::TERM)?;
        let mut status = None;
        wait_until("the end of the exporter", AT_ONCE, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        })?;
        status.context("status")
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // Ended already, unless the trial failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A traffic process. Dropping it kills the process.
#[derive(Debug)]
pub struct Traffic(Child);

impl Traffic {
    /// Starts one in this namespace. It ends with it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(sandbox: &Sandbox, role: Role, port: u16, rate: f64) -> Result<Self> {
        let args = RoleArgs { rate, ..RoleArgs::new(role, (Ipv4Addr::LOCALHOST, port).into()) };
        // The thread that starts it is the sandbox's own.
        let line = RoleArgs { lifetime: Duration::from_secs(300), ..args }.to_command_line();
        let mut command = Command::new(binary::path());
        command.args(line).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(sandbox.spawn(command)?))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
