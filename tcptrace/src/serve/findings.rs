//! What is not folded but looked up, when somebody asks and not more often than the host should bear: holders in
//! /proc, ages, local ports in use.

use std::collections::BTreeMap;

use super::holders::{Holder, by_label};
use super::labels::Who;
use crate::engine::Engine;
use crate::event::MonoNs;
use crate::filter::Filter;
use crate::inventory::namespaces;
use crate::inventory::sysctl::Sysctls;
use crate::leaks::{Evidence, History, LeakReport, Terms, replayed, survey};
use crate::net::{Flow, State};
use crate::stats::tally::Tally;

/// Destinations counted at most; the busiest is found whatever their number, its count is a lower bound.
const DESTINATIONS: usize = 1000;
/// Busiest destinations whose namespaces are asked for their port range.
const BUSIEST: usize = 16;

/// Local ports in use towards the busiest destination of each network namespace: namespace and count.
pub type PortsInUse = Vec<(u32, u64)>;

/// What the inventory thread has found.
#[derive(Debug)]
pub struct Surveyed {
    evidence: Evidence,
    ports: Vec<PortUse>,
}

/// Local ports towards one destination.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PortUse {
    /// In use.
    pub used: u64,
    /// That connect() may choose from: `ip_local_port_range` without the reserved ones.
    pub available: u32,
}

impl PortUse {
    /// Of 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.used as f64 / f64::from(self.available.max(1))
    }
}

/// One look, complete.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// When.
    pub at: MonoNs,
    /// Sockets in CLOSE_WAIT by label set.
    pub holders: Vec<(Who, Holder)>,
    /// The same by process, with everything known of them: what `/leaks` shows.
    pub leaks: LeakReport,
    /// Towards the destination with the greatest share of ports in use; `None` where no range can be read.
    pub ports: Option<PortUse>,
    /// Connections by state; kept only where a filter makes counting them necessary.
    pub sockets: BTreeMap<State, u64>,
}

/// Looks at the running system. Runs on the inventory thread.
pub fn survey(filter: &Filter, ports: &PortsInUse) -> Result<Surveyed, String> {
    let evidence = survey::take(filter).map_err(|error| format!("cannot list sockets: {error}"))?;
    Ok(Surveyed { evidence, ports: available(ports) })
}

/// How many ports there are where so many are in use. A namespace that has gone is left out.
fn available(ports: &PortsInUse) -> Vec<PortUse> {
    let wanted: Vec<u32> = ports.iter().map(|&(netns, _)| netns).collect();
    let Ok(found) = namespaces::all() else { return Vec::new() };
    let read = found.only(&wanted).list.into_iter().filter_map(|namespace| {
        let available = Sysctls::read(&namespace).ok()?.local_port_count()?;
        let &(_, used) = ports.iter().find(|&&(netns, _)| netns == namespace.inode)?;
        Some(PortUse { used, available })
    });
    read.collect()
}

/// Local ports in use by destination, over everything open: one pass, some 10 ms for a million connections.
#[must_use]
pub fn ports_in_use(engine: &Engine) -> PortsInUse {
    let mut tally = Tally::new(DESTINATIONS);
    for open in engine.open() {
        let Flow { netns, local, remote, remote_port, .. } = open.flow;
        if remote_port != 0 && open.state != State::Listen {
            tally.add((netns, local, remote, remote_port));
        }
    }
    let mut busiest: BTreeMap<u32, u64> = BTreeMap::new();
    for ((netns, ..), count) in tally.ranking(BUSIEST).top {
        let most = busiest.entry(netns).or_default();
        *most = count.max(*most);
    }
    busiest.into_iter().collect()
}

/// Puts together what was looked up and what was traced: the tracer has seen the beginning of what `sock_diag`
/// knows a lower bound of. `history` gives growth, and keeps this look.
#[must_use]
pub fn complete(
    surveyed: Surveyed,
    engine: &Engine,
    terms: &Terms,
    history: &mut History,
    max_series: usize,
) -> Findings {
    let Surveyed { mut evidence, ports } = surveyed;
    replayed::add_ages(&mut evidence, engine);
    let mut leaks = LeakReport::new(&evidence, terms, history);
    leaks.watched_ns = Some(engine.meta().elapsed_ns());
    history.keep(&evidence, terms);
    let mut sockets: BTreeMap<State, u64> = BTreeMap::new();
    if !engine.meta().filters.is_empty() {
        engine.open().for_each(|open| *sockets.entry(open.state).or_default() += 1);
    }
    let ports = ports.into_iter().max_by(|a, b| a.share().total_cmp(&b.share()));
    let holders = by_label(&evidence, &terms.filter, max_series);
    Findings { at: evidence.at, holders, leaks, ports, sockets }
}
