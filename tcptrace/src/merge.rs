//! Several snapshots of recordings as one: figures are added up, and whatever is known of one host only says so.
//!
//! Each recording has been through an engine of its own, so that equal addresses, namespaces and process ids on two
//! hosts never meet. Counts are sums; percentiles and survival curves are worked out anew from the added cells, which
//! are the same everywhere. Consecutive recordings of one host are taken as one history: what was open at the end of
//! an earlier one is known to have lasted until then, and is not open now.

use std::collections::BTreeMap;
use std::hash::Hash;

use rustc_hash::FxHashMap;

use crate::event::Comm;
use crate::net::State;
use crate::outcome::Phase;
use crate::snapshot::{
    Age, BeganBefore, CommCount, ConnectFailures, Ends, HostName, Key, Keying, Meta, OpenDwells, Part,
    ProcessKey, Program, Ranking, Snapshot, Spread, StateReport, TimeWaitTally, Timeout, TransitionCount,
    WallClock,
};
use crate::stats::cells::added;
use crate::stats::survival::{Longest, Survival};
use crate::stats::{RANKED, merged};

/// Recordings that cannot be added up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{first} and {second} are both of host {host} and overlap in time: what both have would count twice")]
pub struct Overlap {
    /// One file.
    pub first: String,
    /// The other.
    pub second: String,
    /// Their host.
    pub host: HostName,
}

/// A snapshot with what it is part of.
struct Piece {
    part: Part,
    snapshot: Snapshot,
    /// No later recording of the same host is there: what is open in it is open at the end.
    is_last: bool,
}

/// Puts snapshots of recordings together.
///
/// # Errors
/// When two of one host overlap in time.
pub fn merge(snapshots: Vec<Snapshot>) -> Result<Snapshot, Overlap> {
    let mut pieces: Vec<Piece> = snapshots
        .into_iter()
        .map(|snapshot| Piece { part: part(&snapshot), snapshot, is_last: true })
        .collect();
    pieces.sort_by_key(|piece| (piece.part.began_ns, piece.part.host));
    for earlier in 0..pieces.len() {
        for later in earlier + 1..pieces.len() {
            let (first, second) = (&pieces[earlier].part, &pieces[later].part);
            if first.host == second.host {
                if second.began_ns < first.ended_ns {
                    let (first, second) = (first.recording.clone(), second.recording.clone());
                    return Err(Overlap { first, second, host: pieces[earlier].part.host });
                }
                pieces[earlier].is_last = false;
            }
        }
    }
    let several_hosts = pieces.iter().any(|piece| piece.part.host != pieces[0].part.host);
    if several_hosts {
        pieces.iter_mut().for_each(name_host);
    }
    let meta = meta(&pieces);
    let states = states(&pieces, several_hosts, meta.hz.is_some());
    let mut all = Snapshot { meta, states, ..Snapshot::default() };
    for Piece { part, snapshot, is_last } in &pieces {
        all.loss = all.loss.plus(&snapshot.loss);
        let of = |text: &str| if several_hosts { format!("{}: {text}", part.host) } else { text.to_owned() };
        all.notes.extend(snapshot.notes.iter().map(|note| of(note)));
        for hook in &snapshot.skipped {
            let mut hook = hook.clone();
            hook.why = of(&hook.why);
            all.skipped.push(hook);
        }
        all.keyed_by = all.keyed_by.map_or(snapshot.keyed_by, |so_far| {
            let folded = snapshot.keyed_by.map_or(0, |keying| keying.folded);
            Some(Keying { folded: so_far.folded + folded, ..so_far })
        });
        if *is_last {
            all.close_wait_holders = sum([&all.close_wait_holders, &snapshot.close_wait_holders]);
        }
    }
    all.programs = programs(&pieces);
    all.transitions = transitions(&pieces, |snapshot| &snapshot.transitions);
    all.lost_transitions = transitions(&pieces, |snapshot| &snapshot.lost_transitions);
    all.time_wait = time_wait(&pieces);
    all.connect_failures = ConnectFailures {
        count: pieces.iter().map(|piece| piece.snapshot.connect_failures.count).sum(),
        by: sum(pieces.iter().map(|piece| &piece.snapshot.connect_failures.by)),
    };
    Ok(all)
}

fn part(snapshot: &Snapshot) -> Part {
    let meta = &snapshot.meta;
    let recording = meta.recording.clone().unwrap_or_default();
    let at = |moment| u64::try_from(meta.wall.time(moment).as_nanosecond()).unwrap_or(0);
    let name = meta.host.as_deref().map(|host| crate::text::escape(host.as_bytes()));
    Part {
        host: HostName::new(name.as_deref().unwrap_or(&recording)),
        kernel: meta.kernel.clone(),
        hz: meta.hz,
        filters: meta.filters.clone(),
        began_ns: at(meta.started),
        ended_ns: at(meta.now),
        events: meta.events,
        connections: meta.connections,
        loss: snapshot.loss,
        recording,
    }
}

/// Puts the host to everything that means something on one host only.
fn name_host(piece: &mut Piece) {
    let host = Some(piece.part.host);
    let snapshot = &mut piece.snapshot;
    for report in &mut snapshot.states {
        if report.key.as_ref().is_some_and(is_of_one_host) {
            report.host = host;
        }
    }
    let name = |process: &mut Option<ProcessKey>| {
        if let Some(process) = process {
            process.host = host;
        }
    };
    snapshot.close_wait_holders.top.iter_mut().for_each(|(process, _)| name(process));
    snapshot.time_wait.owners.top.iter_mut().for_each(|(process, _)| name(process));
    snapshot.time_wait.remotes.top.iter_mut().for_each(|((process, _), _)| name(process));
    snapshot.time_wait.local_ports.top.iter_mut().for_each(|((process, _), _)| name(process));
    snapshot.connect_failures.by.top.iter_mut().for_each(|((process, _), _)| name(process));
}

/// Process ids, namespaces and names of containers mean something on one host; a port and an address everywhere.
fn is_of_one_host(key: &Key) -> bool {
    match key {
        Key::Process(_) | Key::Netns(_) | Key::Container(_) => true,
        Key::Port(_) | Key::Peer(_) | Key::Other(_) => false,
    }
}

/// What all have in common, and the parts.
fn meta(pieces: &[Piece]) -> Meta {
    let parts: Vec<Part> = pieces.iter().map(|piece| piece.part.clone()).collect();
    let same = |of: fn(&Meta) -> Option<String>| {
        let mut values = pieces.iter().map(|piece| of(&piece.snapshot.meta));
        let first = values.next().flatten();
        if values.all(|value| value == first) { first } else { None }
    };
    let names: Vec<_> = parts.iter().map(|part| part.recording.as_str()).collect();
    Meta {
        // Of the Unix epoch: the hosts' own clocks count from their boots.
        wall: WallClock::default(),
        started: parts.iter().map(|part| part.began_ns).min().unwrap_or(0),
        now: parts.iter().map(|part| part.ended_ns).max().unwrap_or(0),
        events: parts.iter().map(|part| part.events).sum(),
        connections: parts.iter().map(|part| part.connections).sum(),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        host: same(|meta| meta.host.clone()),
        kernel: same(|meta| meta.kernel.clone()),
        hz: same(|meta| meta.hz.map(|hz| hz.to_string())).and_then(|hz| hz.parse().ok()),
        sysctls: pieces.iter().flat_map(|piece| piece.snapshot.meta.sysctls.clone()).collect(),
        recording: Some(names.join(", ")),
        filters: same(|meta| Some(meta.filters.clone())).unwrap_or_default(),
        parts,
    }
}

/// What a report is about.
type Slot = (State, Option<Phase>, Option<Key>, Option<HostName>);

fn states(pieces: &[Piece], several_hosts: bool, same_hz: bool) -> Vec<StateReport> {
    let mut by_slot: BTreeMap<Slot, Vec<(&StateReport, bool)>> = BTreeMap::new();
    for piece in pieces {
        for report in &piece.snapshot.states {
            let slot = (report.state, report.phase, report.key.clone(), report.host);
            by_slot.entry(slot.clone()).or_default().push((report, piece.is_last));
            // Without keys the hosts are the keys.
            if several_hosts && piece.snapshot.keyed_by.is_none() {
                let slot = (slot.0, slot.1, None, Some(piece.part.host));
                by_slot.entry(slot).or_default().push((report, piece.is_last));
            }
        }
    }
    let mut reports: Vec<_> = by_slot
        .into_iter()
        .map(|((_, _, _, host), reports)| {
            let timeouts_compare = same_hz || host.is_some();
            StateReport { host, ..together(&reports, timeouts_compare) }
        })
        .collect();
    reports.sort_by_key(|report| {
        let is_keyed = report.key.is_some() || report.host.is_some();
        let dwells = report.finished.count + report.open.count + report.began_before.count;
        let rank = if is_keyed { std::cmp::Reverse(dwells) } else { std::cmp::Reverse(0) };
        (is_keyed, report.state, report.phase, rank)
    });
    reports
}

/// Reports of one state, phase and key, each with whether what is open in it is open at the end.
fn together(reports: &[(&StateReport, bool)], timeouts_compare: bool) -> StateReport {
    let all = || reports.iter().map(|(report, _)| *report);
    let last = || reports.iter().filter(|(_, is_last)| *is_last).map(|(report, _)| *report);
    let finished = merged(all().map(|report| &report.finished));
    let censored = added(all().map(|report| report.open.censored.as_slice()));
    let longest = Longest {
        finished_ns: finished.max_ns,
        open_ns: all().filter_map(|report| report.survival.observed_ns).max(),
    };
    let left_out = all().map(|report| report.survival.left_out).sum();
    let mut ends = Ends::default();
    all().for_each(|report| ends.merge(&report.ends));
    let oldest: Option<Age> = last().filter_map(|report| report.open.oldest).max();
    let first = reports[0].0;
    StateReport {
        state: first.state,
        phase: first.phase,
        key: first.key.clone(),
        host: first.host,
        began: all().map(|report| report.began).sum(),
        survival: Survival::estimate(&finished.buckets, &censored, longest, left_out),
        finished,
        ran_out: merged(all().map(|report| &report.ran_out)),
        open: OpenDwells {
            count: last().map(|report| report.open.count).sum(),
            began_before: last().map(|report| report.open.began_before).sum(),
            oldest,
            ages: added(last().map(|report| report.open.ages.as_slice())),
            censored,
        },
        ends,
        began_before: BeganBefore {
            count: all().map(|report| report.began_before.count).sum(),
            longest_at_least_ns: all().filter_map(|report| report.began_before.longest_at_least_ns).max(),
        },
        timeout: if timeouts_compare { timeout(all()) } else { None },
        rearmed: all().map(|report| report.rearmed).sum(),
        as_full_socket: spread(all().filter_map(|report| report.as_full_socket)),
    }
}

/// In jiffies, so that only those of one HZ can be compared; `None` as well where the hosts have set theirs to
/// different lengths, because no dwell is to be judged by another host's timer.
fn timeout<'a>(reports: impl Iterator<Item = &'a StateReport> + Clone) -> Option<Timeout> {
    let mut timeouts = reports.filter_map(|report| report.timeout);
    let first = timeouts.next()?;
    timeouts.try_fold(first, |so_far, timeout| {
        (timeout.most_common_jiffies == so_far.most_common_jiffies).then(|| Timeout {
            min_jiffies: so_far.min_jiffies.min(timeout.min_jiffies),
            max_jiffies: so_far.max_jiffies.max(timeout.max_jiffies),
            ..so_far
        })
    })
}

fn spread(parts: impl Iterator<Item = Spread>) -> Option<Spread> {
    parts.reduce(|a, b| {
        let count = a.count + b.count;
        let sum = u128::from(a.mean_ns) * u128::from(a.count) + u128::from(b.mean_ns) * u128::from(b.count);
        // A mean lies between two u64, so that it is one.
        let mean_ns = (sum / u128::from(count.max(1))) as u64;
        Spread { count, min_ns: a.min_ns.min(b.min_ns), mean_ns, max_ns: a.max_ns.max(b.max_ns) }
    })
}

/// Lists of the most frequent, added up. What one of them had to leave out may have been as frequent there as its
/// last entry: each count may be too low by that much.
fn sum<'a, T: Clone + Eq + Hash + Ord + 'a>(
    rankings: impl IntoIterator<Item = &'a Ranking<T>>,
) -> Ranking<T> {
    let mut counts: FxHashMap<&T, u64> = FxHashMap::default();
    let mut undercount = 0;
    for ranking in rankings {
        undercount += ranking.undercount;
        if ranking.top.len() >= RANKED {
            undercount += ranking.top.last().map_or(0, |(_, count)| *count);
        }
        for (entry, count) in &ranking.top {
            *counts.entry(entry).or_default() += count;
        }
    }
    let mut top: Vec<_> = counts.into_iter().map(|(entry, count)| (entry.clone(), count)).collect();
    top.sort_unstable_by(|(a_entry, a), (b_entry, b)| b.cmp(a).then_with(|| a_entry.cmp(b_entry)));
    top.truncate(RANKED);
    Ranking { top, undercount }
}

fn time_wait(pieces: &[Piece]) -> TimeWaitTally {
    let tallies = || pieces.iter().map(|piece| &piece.snapshot.time_wait);
    let mut by_comm: BTreeMap<Comm, u64> = BTreeMap::new();
    for entry in tallies().flat_map(|tally| &tally.by_comm) {
        *by_comm.entry(entry.comm).or_default() += entry.count;
    }
    // Addresses of two hosts may be the same and are still two destinations: not added up.
    let mut open_to: Vec<_> = pieces
        .iter()
        .filter(|piece| piece.is_last)
        .flat_map(|piece| piece.snapshot.time_wait.open_to.top.clone())
        .collect();
    open_to.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    open_to.truncate(RANKED);
    TimeWaitTally {
        total: tallies().map(|tally| tally.total).sum(),
        owners: sum(tallies().map(|tally| &tally.owners)),
        remotes: sum(tallies().map(|tally| &tally.remotes)),
        local_ports: sum(tallies().map(|tally| &tally.local_ports)),
        open_to: Ranking { top: open_to, undercount: tallies().map(|tally| tally.open_to.undercount).sum() },
        // A cgroup's number means nothing beyond its host.
        by_comm: by_comm.into_iter().map(|(comm, count)| CommCount { comm, cgroup_id: 0, count }).collect(),
        by_comm_other: tallies().map(|tally| tally.by_comm_other).sum(),
    }
}

fn transitions(pieces: &[Piece], of: fn(&Snapshot) -> &Vec<TransitionCount>) -> Vec<TransitionCount> {
    let mut counts: BTreeMap<(State, State), u64> = BTreeMap::new();
    for counted in pieces.iter().flat_map(|piece| of(&piece.snapshot)) {
        *counts.entry((counted.from, counted.to)).or_default() += counted.count;
    }
    counts.into_iter().map(|((from, to), count)| TransitionCount { from, to, count }).collect()
}

fn programs(pieces: &[Piece]) -> Vec<Program> {
    let mut runs: BTreeMap<&str, Option<u64>> = BTreeMap::new();
    for program in pieces.iter().flat_map(|piece| &piece.snapshot.programs) {
        // Not counted on one host is not known for all.
        let so_far = runs.entry(&program.name).or_insert(Some(0));
        *so_far = so_far.zip(program.runs).map(|(a, b)| a + b);
    }
    runs.into_iter().map(|(name, runs)| Program { name: name.to_owned(), runs }).collect()
}

#[cfg(test)]
mod tests;
