//! Who makes TIME_WAITs, and how long local ports last at that.

use crate::ports::reuses;
use crate::snapshot::{Destination, ProcessKey, Snapshot};

use super::rates::Recent;

/// `TCP_TIMEWAIT_LEN` and what the timer wheel adds: how long a TIME_WAIT keeps its port.
const KEEPS_S: f64 = 62.0;
/// Slower growth than this, per second, is none.
const STANDS_STILL: f64 = 0.2;

/// A process that makes TIME_WAITs.
#[derive(Clone, Debug, PartialEq)]
pub struct Maker {
    /// Who; `None` where not known.
    pub process: Option<ProcessKey>,
    /// TIME_WAITs that it began.
    pub began: u64,
    /// The same per second, lately.
    pub per_second: Option<f64>,
}

/// TIME_WAITs towards one destination.
#[derive(Clone, Debug, PartialEq)]
pub struct Towards {
    /// From where to where.
    pub to: Destination,
    /// TIME_WAITs that are there now.
    pub sockets: u64,
    /// Growth per second, lately.
    pub per_second: Option<f64>,
    /// Local ports that there are for it; `None` where not known.
    pub ports: Option<u64>,
    /// What will come of it.
    pub outlook: Outlook,
}

/// What will come of the TIME_WAITs towards a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// Not known yet, or never: how many ports there are is not known.
    Unknown,
    /// They become no more.
    Steady,
    /// As old ones end they will come to about so many.
    Settles(u64),
    /// connect() takes them over after a second.
    Reused,
    /// No port is left in so many seconds.
    ExhaustedIn(u64),
}

/// Both lists of a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TimeWaits {
    /// Most TIME_WAITs first.
    pub makers: Vec<Maker>,
    /// Most first.
    pub towards: Vec<Towards>,
}

/// What is remembered for rates.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    makers: Recent<Option<ProcessKey>>,
    towards: Recent<Destination>,
    /// TIME_WAITs begun towards a remote end.
    begun: Recent<std::net::SocketAddr>,
}

impl Memory {
    /// Makes the lists of a snapshot.
    pub fn look(&mut self, snapshot: &Snapshot) -> TimeWaits {
        let now = snapshot.meta.now;
        let tally = &snapshot.time_wait;
        let begun = begun_by_remote(snapshot);
        self.makers.keep(now, tally.owners.top.iter().copied());
        self.towards.keep(now, tally.open_to.top.iter().copied());
        self.begun.keep(now, begun.iter().copied());
        let makers = tally.owners.top.iter().map(|&(process, began)| Maker {
            process,
            began,
            per_second: self.makers.per_second(&process, now, began),
        });
        // A server's TIME_WAITs lead to as many ports as it had clients; they take no port from anybody.
        let shared = tally.open_to.top.iter().filter(|(_, sockets)| *sockets > 1);
        let towards = shared.map(|&(to, sockets)| {
            let per_second = self.towards.per_second(&to, now, sockets);
            let begun = begun.iter().find(|(remote, _)| *remote == to.remote).map(|&(_, count)| count);
            let arriving = begun.and_then(|count| self.begun.per_second(&to.remote, now, count));
            let sysctls = snapshot.meta.sysctls.iter().find(|sysctls| sysctls.netns == Some(to.netns));
            let ports = sysctls.and_then(|sysctls| sysctls.local_ports).map(u64::from);
            let reuses = reuses(&to, sysctls.and_then(|sysctls| sysctls.tcp_tw_reuse));
            let outlook = outlook(sockets, per_second, arriving, ports, reuses);
            Towards { to, sockets, per_second, ports, outlook }
        });
        TimeWaits { makers: makers.collect(), towards: towards.collect() }
    }
}

fn begun_by_remote(snapshot: &Snapshot) -> Vec<(std::net::SocketAddr, u64)> {
    let mut all: Vec<(std::net::SocketAddr, u64)> = Vec::new();
    for ((_, remote), count) in &snapshot.time_wait.remotes.top {
        match all.iter_mut().find(|(known, _)| known == remote) {
            Some((_, sum)) => *sum += count,
            None => all.push((*remote, *count)),
        }
    }
    all
}

fn outlook(
    sockets: u64,
    growth: Option<f64>,
    arriving: Option<f64>,
    ports: Option<u64>,
    reuses: bool,
) -> Outlook {
    let (Some(growth), Some(ports)) = (growth, ports) else { return Outlook::Unknown };
    if reuses {
        return Outlook::Reused;
    }
    if growth < STANDS_STILL {
        return Outlook::Steady;
    }
    // As many begin as end once the first have lasted their time.
    let settles = arriving.filter(|&rate| rate > 0.0).map(|rate| rate * KEEPS_S);
    match settles {
        Some(settles) if settles < ports as f64 => Outlook::Settles((settles.round() as u64).max(sockets)),
        _ => Outlook::ExhaustedIn((ports.saturating_sub(sockets) as f64 / growth) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_connects_too_often_runs_out_of_ports() {
        let ports = Some(28_232);
        assert_eq!(outlook(10_000, Some(500.0), Some(500.0), ports, false), Outlook::ExhaustedIn(36));
        assert_eq!(outlook(1_000, Some(20.0), Some(20.0), ports, false), Outlook::Settles(1_240));
        assert_eq!(outlook(28_000, Some(0.0), Some(450.0), ports, false), Outlook::Steady);
        assert_eq!(outlook(10_000, Some(500.0), Some(500.0), ports, true), Outlook::Reused);
        assert_eq!(outlook(10_000, Some(500.0), Some(500.0), None, false), Outlook::Unknown);
        assert_eq!(outlook(10_000, None, None, ports, false), Outlook::Unknown);
    }
}
