//! Limits of the kernel, and how near they are.

use super::patient::fullness;
use super::{Check, Group, Patient, Verdict};
use crate::inventory::slab::Cache;
use crate::views::human;

pub(super) fn checks(patient: &Patient) -> Vec<Check> {
    let mut checks = match &patient.counters {
        Ok(_) => [time_waits, orphans, tcp_memory].iter().filter_map(|check| check(patient)).collect(),
        Err(error) => {
            vec![check("counters", Verdict::Note, format!("The kernel's counters cannot be read: {error}."))]
        }
    };
    checks.push(mini_memory(patient));
    checks.extend(open_files(patient));
    checks.extend(conntrack(patient));
    checks
}

fn check(name: &str, verdict: Verdict, detail: impl Into<String>) -> Check {
    Check::new(Group::Limits, name, verdict, detail)
}

fn of(used: u64, limit: u64) -> String {
    format!("{} of {}", human::count(used), human::count(limit))
}

/// Minis against `tcp_max_tw_buckets`.
fn time_waits(patient: &Patient) -> Option<Check> {
    let now = patient.counter("sockstat.TCP.tw")?;
    let limit = patient.sysctls.number("net.ipv4.tcp_max_tw_buckets")?;
    let overflows = patient.counter("TcpExtTCPTimeWaitOverflow");
    // A full table refuses no connection: it takes their protection away.
    let mut verdict = fullness(now, limit).min(Verdict::Warn);
    let overflowed = match overflows {
        Some(0) => "The limit was never reached.".to_owned(),
        Some(count) => {
            verdict = Verdict::Warn;
            format!(
                "{} got no TIME_WAIT, because the limit was reached or memory was short (TCPTimeWaitOverflow): a late \
                 segment may end up in a successor. To do: raise tcp_max_tw_buckets.",
                human::counted(count, "connection")
            )
        }
        None => "This kernel does not count how often the limit was reached.".to_owned(),
    };
    let detail = format!("TIME_WAITs and orphaned FIN_WAIT2 against tcp_max_tw_buckets. {overflowed}");
    Some(check("time_waits", verdict, detail).value(of(now, limit)).of(patient.netns))
}

/// Full sockets without a process. The count is of the whole host (`tcp_orphan_count_sum()`), the counter of the
/// namespace.
fn orphans(patient: &Patient) -> Option<Check> {
    let now = patient.counter("sockstat.TCP.orphan")?;
    let Some(limit) = patient.sysctls.number("net.ipv4.tcp_max_orphans") else {
        let detail = "tcp_max_orphans is not shown in this network namespace.";
        return Some(check("orphans", Verdict::Note, detail).value(human::count(now)));
    };
    let aborted = patient.counter("TcpExtTCPAbortOnMemory");
    let mut verdict = fullness(now, limit).min(Verdict::Warn);
    let reset = match aborted {
        Some(0) => "None was reset for it in this namespace.".to_owned(),
        Some(count) => {
            verdict = Verdict::Warn;
            format!(
                "{} reset in this namespace, because the limit was near or memory was short (TCPAbortOnMemory).",
                if count == 1 { "1 was".to_owned() } else { format!("{} were", human::count(count)) }
            )
        }
        None => String::new(),
    };
    let detail = format!(
        "Sockets without a process in FIN_WAIT1, CLOSING and LAST_ACK against tcp_max_orphans; the kernel begins to \
         reset at a quarter of it where a peer is silent. {reset}"
    );
    Some(check("orphans", verdict, detail).value(of(now, limit)))
}

/// Pages of all TCP sockets against `tcp_mem`.
fn tcp_memory(patient: &Patient) -> Option<Check> {
    let now = patient.counter("sockstat.TCP.mem")?;
    let [_, pressure, high] = patient.sysctls.triple("net.ipv4.tcp_mem")?;
    let verdict = match now {
        now if now >= high => Verdict::Fail,
        now if now >= pressure => Verdict::Warn,
        _ => Verdict::Ok,
    };
    let detail = format!(
        "Pages of the buffers of all sockets against tcp_mem; from {} on buffers shrink, beyond the last sockets are \
         reset.",
        human::count(pressure)
    );
    Some(check("tcp_memory", verdict, detail).value(of(now, high)))
}

/// What minis cost, from the slab allocator.
fn mini_memory(patient: &Patient) -> Check {
    const NAME: &str = "mini_memory";
    let caches: Vec<&Cache> = patient.minis.iter().flatten().collect();
    let unknown: Vec<String> =
        patient.minis.iter().filter_map(|cache| cache.as_ref().err().map(ToString::to_string)).collect();
    // The list cannot be read for one and not for the other.
    let unknown = unknown.first().map_or_else(String::new, |why| format!(" Not all is known: {why}."));
    if caches.is_empty() {
        let size = patient.probe.mini_bytes.map_or_else(String::new, |bytes| {
            format!(" One takes at least {} (struct tcp_timewait_sock).", human::bytes(bytes.into()))
        });
        return check(NAME, Verdict::Note, format!("Memory of TIME_WAITs.{unknown}{size}"));
    }
    let sum = |figure: fn(&Cache) -> u64| caches.iter().map(|cache| figure(cache)).sum::<u64>();
    let each = caches.iter().map(|cache| cache.object_bytes).max().unwrap_or_default();
    let detail = format!(
        "Memory of the TIME_WAITs of the whole host: {} of {} in use at most, {} each ({}).{unknown}",
        human::count(sum(|cache| cache.active)),
        human::count(sum(|cache| cache.total)),
        human::bytes(each),
        human::list(&caches.iter().map(|cache| cache.name.clone()).collect::<Vec<_>>())
    );
    check(NAME, Verdict::Ok, detail).value(human::bytes(sum(|cache| cache.memory_bytes)))
}

fn open_files(patient: &Patient) -> Option<Check> {
    let now = patient.open_files?;
    let limit = patient.sysctls.number("fs.file-max")?;
    let detail = "Open files of the whole host against fs.file-max; a TIME_WAIT is none.";
    Some(check("open_files", fullness(now, limit), detail).value(of(now, limit)))
}

/// The limit is the host's, and holds for each namespace (`__nf_conntrack_alloc()`). 0 is none.
fn conntrack(patient: &Patient) -> Option<Check> {
    let now = patient.conntrack?;
    let limit = patient.sysctls.number("net.netfilter.nf_conntrack_max").filter(|&limit| limit > 0)?;
    let detail = "Connections that the firewall remembers against nf_conntrack_max; beyond it new connections are \
                  dropped. Those of closed connections stay as long as the nf_conntrack_tcp_timeout_* below say.";
    Some(check("conntrack", fullness(now, limit), detail).value(of(now, limit)).of(patient.netns))
}
