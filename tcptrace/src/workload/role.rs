//! The processes that traffic is made of, and the hidden subcommand that becomes one of them.

use std::ffi::CString;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::pace::Pace;
use super::{churn, client, leaky, server};
use crate::sandbox::end_with_parent;

/// The line a server prints once it listens.
pub(super) const READY: &str = "ready";

/// What a traffic process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Role {
    /// Answers a request and closes when the client has closed.
    Server,
    /// Asks, reads the answer and closes first.
    Client,
    /// Keeps its end open for `--hold` after the client has closed.
    Holder,
    /// Closes first, against a server that does not.
    Orphans,
    /// Lets half-closed clients wait `--hold` for the end of the answer.
    SlowServer,
    /// Shuts down its sending side and reads on.
    HalfClosed,
    /// Forgets to close.
    Leaky,
    /// Uses the leaking server's three services in turn.
    Visitor,
    /// Holds a descriptor that it inherited and does not know of.
    Worker,
    /// Reads until it is told ECONNRESET.
    ResetServer,
    /// Ends its connections by RST (SO_LINGER 0).
    Reset,
    /// Connects and closes as fast as the machine can: for benchmarks.
    Churn,
    /// The same, `--rate` times a second.
    Steady,
}

impl Role {
    /// Task name of the process, at most 15 bytes.
    #[must_use]
    pub const fn comm(self) -> &'static str {
        match self {
            Self::Server => "demo-server",
            Self::Client => "demo-client",
            Self::Holder => "demo-holder",
            Self::Orphans => "demo-orphans",
            Self::SlowServer => "demo-slow",
            Self::HalfClosed => "demo-halfclosed",
            Self::Leaky => "demo-leaky",
            Self::Visitor => "demo-visitor",
            Self::Worker => "demo-worker",
            Self::ResetServer => "demo-resetsrv",
            Self::Reset => "demo-reset",
            Self::Churn => "churn",
            Self::Steady => "steady",
        }
    }

    /// True for roles that listen and say so before clients may come.
    #[must_use]
    pub const fn is_server(self) -> bool {
        matches!(self, Self::Server | Self::Holder | Self::SlowServer | Self::Leaky | Self::ResetServer)
    }
}

/// A role and its bounds: the arguments of the hidden subcommand `__workload`.
#[derive(Args, Clone, Debug)]
pub struct RoleArgs {
    /// What to do.
    pub role: Role,
    /// Where to listen or connect.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub at: SocketAddr,
    /// Connections per second, at most.
    #[arg(long, default_value_t = 1.0, value_parser = parse_rate)]
    pub rate: f64,
    /// Connections in all (for the leaking server: sockets leaked in each way).
    #[arg(long, default_value_t = u64::MAX)]
    pub count: u64,
    /// How long a server keeps what it should close, in milliseconds.
    #[arg(long = "hold-ms", default_value = "0", value_parser = parse_millis)]
    pub hold: Duration,
    /// Milliseconds after which the process ends by itself.
    #[arg(long = "for-ms", default_value = "3600000", value_parser = parse_millis)]
    pub lifetime: Duration,
    /// Threads (churn and steady only).
    #[arg(long, default_value_t = 2)]
    pub threads: u16,
    /// With servers that are asked and answer (churn only).
    #[arg(long)]
    pub served: bool,
    /// The process that must still be there: this one ends with it.
    #[arg(long)]
    pub parent: Option<u32>,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 100_000.0 => Ok(rate),
        _ => Err("a number of connections per second, above 0 and at most 100000".to_owned()),
    }
}

fn parse_millis(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_millis)
}

impl RoleArgs {
    /// One connection a second, without limit, for an hour, ending with this process.
    #[must_use]
    pub fn new(role: Role, at: SocketAddr) -> Self {
        Self {
            role,
            at,
            rate: 1.0,
            count: u64::MAX,
            hold: Duration::ZERO,
            lifetime: Duration::from_secs(3600),
            threads: 2,
            served: false,
            parent: Some(std::process::id()),
        }
    }

    /// The arguments, subcommand included, that make [`run`] receive this.
    #[must_use]
    pub fn to_command_line(&self) -> Vec<String> {
        let role = self.role.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let mut line = vec!["__workload".to_owned(), role];
        let mut option = |name: &str, value: String| line.extend([name.to_owned(), value]);
        option("--at", self.at.to_string());
        option("--rate", self.rate.to_string());
        option("--count", self.count.to_string());
        option("--hold-ms", self.hold.as_millis().to_string());
        option("--for-ms", self.lifetime.as_millis().to_string());
        option("--threads", self.threads.to_string());
        if let Some(parent) = self.parent {
            option("--parent", parent.to_string());
        }
        line
    }

    /// Paces connections by `--rate` and `--count`.
    pub(super) fn pace(&self) -> Pace {
        Pace::new(self.rate, self.count)
    }
}

/// Becomes the role; returns when it is done.
///
/// # Errors
/// When the process that wanted the traffic is gone, or a server cannot listen.
pub fn run(args: &RoleArgs) -> io::Result<()> {
    if let Some(parent) = args.parent {
        end_with_parent(parent)?;
    }
    name_this_process(args.role.comm())?;
    end_after(args.lifetime)?;
    match args.role {
        Role::Server => server::answer_and_close(args),
        Role::Client => client::ask_and_close_first(args),
        Role::Holder => server::close_much_later(args),
        Role::Orphans => client::close_without_waiting(args),
        Role::SlowServer => server::answer_slowly(args),
        Role::HalfClosed => client::shut_down_and_read_on(args),
        Role::Leaky => leaky::serve(args),
        Role::Visitor => client::visit_leaky_server(args),
        Role::Worker => leaky::work_and_never_look_at_stdin(),
        Role::ResetServer => server::read_until_reset(args),
        Role::Reset => client::close_by_reset(args),
        Role::Churn | Role::Steady => churn::run(args),
    }
}

/// Threads inherit the name, so every socket call of the process carries it.
fn name_this_process(comm: &str) -> io::Result<()> {
    Ok(rustix::thread::set_name(&CString::new(comm)?)?)
}

/// However the role ends, it ends.
fn end_after(lifetime: Duration) -> io::Result<()> {
    std::thread::Builder::new().spawn(move || {
        std::thread::sleep(lifetime);
        std::process::exit(0);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: RoleArgs,
    }

    #[test]
    fn arguments_survive_the_command_line() {
        let sent = RoleArgs {
            rate: 2.5,
            count: 7,
            hold: Duration::from_millis(1500),
            ..RoleArgs::new(Role::HalfClosed, "[::1]:99".parse().unwrap())
        };
        let received = Line::try_parse_from(sent.to_command_line()).map(|line| line.args).unwrap();
        assert_eq!(format!("{sent:?}"), format!("{received:?}"));
    }

    #[test]
    fn task_names_fit() {
        for role in Role::value_variants() {
            assert!(role.comm().len() <= 15, "{role:?}");
        }
    }

    #[test]
    fn rates_are_bounded() {
        for bad in ["0", "-1", "NaN", "inf", "1e9", "x"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_rate("0.5"), Ok(0.5));
    }
}
