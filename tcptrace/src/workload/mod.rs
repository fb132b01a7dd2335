//! Generated traffic: what makes TIME_WAIT, FIN_WAIT2 and CLOSE_WAIT, made on purpose.
//!
//! Every role is a process of its own with a task name of its own (`demo-…`), because owners and leaks are
//! attributed to processes. Roles are hidden subcommands of this binary; each is bounded in rate, count and
//! time, and ends with the process that started it. They talk on the loopback of a [`Sandbox`] only.

mod churn;
mod client;
mod leaky;
mod pace;
pub mod records;
mod role;
mod server;

use std::io::{self, BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;

use crate::sandbox::{Sandbox, SandboxError};

pub use role::{Role, RoleArgs, run};

/// What kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Kind {
    /// Short request-and-answer connections, closed by the client: TIME_WAIT.
    Short,
    /// The client closes, the server does not: FIN_WAIT2 without a process, ended by tcp_fin_timeout.
    Orphans,
    /// The client shuts down its sending side and waits for the rest of the answer: FIN_WAIT2 with a process.
    HalfClosed,
    /// A server that forgets to close, in three ways and once in two processes: CLOSE_WAIT for ever.
    Leaky,
    /// Connections ended by RST: no closing state at all.
    Reset,
    /// All of them.
    Mixed,
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Where the servers listen: an address of the namespace.
    pub address: IpAddr,
    /// Connections per second of the short kind; the others go at a fraction of it.
    pub rate: f64,
    /// How long the servers of orphans keep their end open: longer than the namespace's tcp_fin_timeout, or
    /// it is not the timeout that ends FIN_WAIT2.
    pub hold: Duration,
    /// How long a server makes half-closed clients wait.
    pub answer_after: Duration,
    /// Sockets that the leaking server may leak in each of its ways before it behaves.
    pub leaks: u64,
    /// Say nothing about connections that fail: where failing is what is measured.
    pub quiet: bool,
}

impl Settings {
    /// Fit for a namespace with this tcp_fin_timeout.
    #[must_use]
    pub fn for_fin_timeout(fin_timeout: Duration) -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            rate: 20.0,
            // The timer wheel is late by an eighth at most; the rest is for a busy machine. Above 60 s the kernel
            // doubles the excess, which stays below the sum.
            hold: fin_timeout * 5 / 4 + Duration::from_secs(2),
            answer_after: Duration::from_secs(3),
            leaks: 40,
            quiet: false,
        }
    }
}

/// Why traffic could not be started.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// The namespace failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// This binary could not be found again.
    #[error("cannot find the path of this program: {0}")]
    OwnPath(io::Error),
    /// A server ended, or said something else, before it was listening.
    #[error("the traffic generator {role} did not start")]
    NotReady {
        /// Which.
        role: &'static str,
    },
}

/// Running traffic. Dropping it kills the processes.
#[derive(Debug)]
pub struct Running {
    processes: Vec<(Role, Child)>,
}

impl Running {
    /// Starts the processes of `kind` in the sandbox: servers first, clients once those listen.
    ///
    /// # Errors
    /// When a process cannot be started or a server does not come up. What was started is killed.
    pub fn start(sandbox: &Sandbox, kind: Kind, settings: &Settings) -> Result<Self, WorkloadError> {
        let mut running = Self { processes: Vec::new() };
        let plan = plan(kind, settings);
        let (servers, clients): (Vec<_>, Vec<_>) = plan.into_iter().partition(|args| args.role.is_server());
        for args in servers {
            let role = args.role;
            let child = sandbox.spawn(command(&args, Stdio::piped(), settings)?)?;
            running.processes.push((role, child));
        }
        for (role, child) in &mut running.processes {
            let mut line = String::new();
            let stdout = child.stdout.take();
            let read = stdout.map(|out| BufReader::new(out).read_line(&mut line));
            if !matches!(read, Some(Ok(_))) || line.trim_end() != role::READY {
                return Err(WorkloadError::NotReady { role: role.comm() });
            }
        }
        for args in clients {
            let child = sandbox.spawn(command(&args, Stdio::null(), settings)?)?;
            running.processes.push((args.role, child));
        }
        Ok(running)
    }

    /// The processes: role and pid.
    pub fn processes(&self) -> impl Iterator<Item = (Role, u32)> {
        self.processes.iter().map(|(role, child)| (*role, child.id()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for (_, child) in &mut self.processes {
            // Already dead is as good.
            let _ = child.kill();
        }
        for (_, child) in &mut self.processes {
            let _ = child.wait();
        }
    }
}

fn command(args: &RoleArgs, stdout: Stdio, settings: &Settings) -> Result<Command, WorkloadError> {
    let mut command = Command::new(std::env::current_exe().map_err(WorkloadError::OwnPath)?);
    command
        .args(args.to_command_line())
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(if settings.quiet { Stdio::null() } else { Stdio::inherit() })
        // Ctrl-C is for the command that watches: it still has to report what this traffic left open.
        .process_group(0);
    Ok(command)
}

/// Which processes make up a kind. Ports are fixed: the namespace is private.
fn plan(kind: Kind, settings: &Settings) -> Vec<RoleArgs> {
    let at = |port| SocketAddr::new(settings.address, port);
    let pair = |server, client, port, rate| {
        let server = RoleArgs::new(server, at(port));
        let client = RoleArgs { rate, ..RoleArgs::new(client, at(port)) };
        [server, client]
    };
    let rate = settings.rate;
    match kind {
        Kind::Short => pair(Role::Server, Role::Client, 8080, rate).into(),
        Kind::Orphans => {
            let [server, client] = pair(Role::Holder, Role::Orphans, 8081, rate / 10.0);
            vec![RoleArgs { hold: settings.hold, ..server }, client]
        }
        Kind::HalfClosed => {
            let [server, client] = pair(Role::SlowServer, Role::HalfClosed, 8082, rate / 10.0);
            vec![RoleArgs { hold: settings.answer_after, ..server }, client]
        }
        Kind::Leaky => {
            let [server, client] = pair(Role::Leaky, Role::Visitor, 8083, rate / 10.0);
            vec![RoleArgs { count: settings.leaks, ..server }, client]
        }
        Kind::Reset => pair(Role::ResetServer, Role::Reset, 8090, rate / 10.0).into(),
        Kind::Mixed => [Kind::Short, Kind::Orphans, Kind::HalfClosed, Kind::Leaky, Kind::Reset]
            .into_iter()
            .flat_map(|kind| plan(kind, settings))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixed_traffic_uses_every_port_once() {
        let plan = plan(Kind::Mixed, &Settings::for_fin_timeout(Duration::from_secs(5)));
        let mut ports: Vec<_> =
            plan.iter().filter(|args| args.role.is_server()).map(|args| args.at.port()).collect();
        let servers = ports.len();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), servers);
        assert_eq!(plan.len(), 2 * servers);
    }

    #[test]
    fn orphans_are_held_longer_than_the_kernel_keeps_them() {
        for seconds in [1, 5, 60, 90] {
            let hold = Settings::for_fin_timeout(Duration::from_secs(seconds)).hold;
            let kernel = if seconds > 60 { 2 * (seconds - 60) } else { seconds };
            assert!(hold > Duration::from_secs(kernel) * 9 / 8);
        }
    }
}
