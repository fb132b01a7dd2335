//! Descriptors of the processes that hold most sockets.

use std::collections::BTreeMap;

use super::patient::fullness;
use super::{Check, Group, Patient, Verdict};
use crate::inventory::process::Process;
use crate::views::human;

/// Processes listed at most; beyond them only those that are nearly at their limit.
const LISTED: usize = 5;

pub(super) fn checks(patient: &Patient) -> Vec<Check> {
    let Ok(dump) = &patient.sockets else { return Vec::new() };
    let filter = &patient.filter;
    let mut sockets: BTreeMap<u32, u64> = BTreeMap::new();
    for socket in dump.sockets.iter().filter(|socket| filter.matches_flow(&socket.flow)) {
        let owners = patient.ownership.owners_of(socket);
        for owner in owners.filter(|owner| filter.matches_owner(Some(owner))) {
            *sockets.entry(owner.pid).or_default() += 1;
        }
    }
    let mut holders: Vec<(u32, u64)> = sockets.into_iter().collect();
    holders.sort_by_key(|&(pid, count)| (std::cmp::Reverse(count), pid));
    let checks = holders.into_iter().filter_map(|(pid, count)| {
        Some(of_process(patient.ownership.process(pid)?, count).of(patient.netns))
    });
    checks
        .enumerate()
        .filter(|(index, check)| *index < LISTED || check.verdict >= Verdict::Warn)
        .map(|(_, check)| check)
        .collect()
}

fn of_process(process: &Process, sockets: u64) -> Check {
    let name = format!("{}[{}]", process.comm, process.pid);
    let holds = human::counted(sockets, "TCP socket");
    let check = |verdict, detail: String| Check {
        pid: Some(process.pid),
        ..Check::new(Group::Limits, format!("fds of {name}"), verdict, detail)
    };
    match (process.fds.open, process.fds.limit) {
        (Some(open), Some(limit)) => {
            let verdict = fullness(open, limit);
            let what = match verdict {
                Verdict::Fail => {
                    "No descriptor is left: socket() and accept() fail with EMFILE. To do: `tcptrace leaks` \
                                  says whether they are leaked; else raise LimitNOFILE."
                }
                Verdict::Warn => {
                    "Little is left until EMFILE. To do: `tcptrace leaks` says whether they are leaked; \
                                  else raise LimitNOFILE."
                }
                _ => "Descriptors against RLIMIT_NOFILE.",
            };
            check(verdict, format!("{holds}. {what}")).value(format!(
                "{} of {}",
                human::count(open),
                human::count(limit)
            ))
        }
        _ => check(
            Verdict::Note,
            format!("{holds}. Its descriptors cannot be counted (needs CAP_SYS_PTRACE)."),
        ),
    }
}
