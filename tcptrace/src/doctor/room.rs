//! Local ports: how many are left towards each destination, and how many connections per second that sustains.

use std::collections::BTreeSet;
use std::time::Duration;

use super::patient::fullness;
use super::{Check, Group, Patient, Ports, Verdict};
use crate::inventory::diag::DiagSocket;
use crate::net::State;
use crate::ports::{Headroom, REUSE_AFTER_MS, Rules, headroom};
use crate::snapshot::{Destination, Snapshot};
use crate::views::human;

/// Destinations listed at most, the fullest; beyond them only those that are nearly full.
const LISTED: usize = 5;
/// `TCP_TIMEWAIT_LEN`.
const NOMINAL: Duration = Duration::from_secs(60);
/// Fewer TIME_WAITs that ran their time say little about the mean.
const ENOUGH: u64 = 10;

pub(super) fn checks(patient: &Patient) -> Vec<Check> {
    let here = |check: Check| check.of(patient.netns);
    let check = |verdict, detail: String| here(Check::new(Group::Ports, "local_ports", verdict, detail));
    let dump = match &patient.sockets {
        Ok(dump) => dump,
        Err(error) => {
            return vec![check(Verdict::Note, format!("The sockets could not be listed: {error}."))];
        }
    };
    let Some(rules) = rules(patient) else {
        return vec![check(Verdict::Note, "ip_local_port_range could not be read.".to_owned())];
    };
    let dwell = Dwell::of(patient.measured.as_ref());
    let all = headroom(&dump.sockets, &rules);
    let wanted = wanted(patient, &dump.sockets);
    let is_wanted = |room: &&Headroom| wanted.as_ref().is_none_or(|wanted| wanted.contains(&room.to));
    let rooms: Vec<&Headroom> = all.iter().filter(is_wanted).collect();
    let mut checks = vec![here(overall(&rooms, &rules, dwell))];
    for (index, room) in rooms.iter().enumerate() {
        let of_room = here(towards(room, dwell));
        if index < LISTED || of_room.verdict >= Verdict::Warn {
            checks.push(of_room);
        }
    }
    checks.push(here(failures(patient)));
    checks
}

/// The destinations that the filter wants: of each that has a wanted socket, all ports are counted. `None` wants
/// all.
fn wanted(patient: &Patient, sockets: &[DiagSocket]) -> Option<BTreeSet<Destination>> {
    let filter = &patient.filter;
    let owned = |socket: &&DiagSocket| {
        !filter.needs_owner()
            || patient.ownership.owners_of(socket).any(|owner| filter.matches_owner(Some(&owner)))
    };
    let of_wanted = sockets.iter().filter(|socket| filter.matches_flow(&socket.flow)).filter(owned);
    (!filter.is_all()).then(|| of_wanted.map(|socket| Destination::of(&socket.flow)).collect())
}

fn rules(patient: &Patient) -> Option<Rules> {
    let number = |name| patient.sysctls.number(name).and_then(|number| u32::try_from(number).ok());
    Some(Rules {
        ports: patient.sysctls.local_ports()?,
        tcp_tw_reuse: number("net.ipv4.tcp_tw_reuse"),
        reuse_after_ms: number("net.ipv4.tcp_tw_reuse_delay").unwrap_or(REUSE_AFTER_MS),
    })
}

/// How long a TIME_WAIT keeps its port.
#[derive(Clone, Copy)]
struct Dwell {
    ns: u64,
    is_nominal: bool,
}

impl Dwell {
    /// The mean of those that ran their time: what ends earlier was taken over, which is counted on its own.
    fn of(snapshot: Option<&Snapshot>) -> Self {
        let ran_out =
            snapshot.and_then(|snapshot| snapshot.of(State::TimeWait, None)).map(|report| &report.ran_out);
        let mean = ran_out.filter(|ran_out| ran_out.count >= ENOUGH).and_then(|ran_out| ran_out.mean_ns);
        match mean.filter(|&mean| mean > 0) {
            Some(ns) => Self { ns, is_nominal: false },
            None => Self { ns: NOMINAL.as_nanos() as u64, is_nominal: true },
        }
    }

    fn seconds(self) -> f64 {
        self.ns as f64 / 1e9
    }
}

/// What holds for every destination: how many ports there are, and what they sustain.
fn overall(rooms: &[&Headroom], rules: &Rules, dwell: Dwell) -> Check {
    let all = rules.ports.count();
    let usable = rooms.first().map_or(all, |room| room.usable);
    let listened = match all.saturating_sub(usable) {
        0 => String::new(),
        1 => " 1 of them is listened on, which takes it from all.".to_owned(),
        n => format!(" {} of them are listened on, which takes them from all.", human::count(n.into())),
    };
    let detail = format!(
        "So many for every pair of a source address and a destination (ip_local_port_range {}, reserved ones \
         left out), not in all.{listened} Where this side closes first they sustain {}, to each destination, \
         unless TIME_WAITs are taken over. Connections to {} take some now.",
        rules.ports,
        sustains(usable, dwell),
        human::counted(rooms.len() as u64, "destination")
    );
    Check::new(Group::Ports, "local_ports", Verdict::Ok, detail).value(human::count(all.into()))
}

/// Connections per second, and why.
fn sustains(usable: u32, dwell: Dwell) -> String {
    let per_s = f64::from(usable) / dwell.seconds();
    let rate = if per_s < 10.0 { format!("{per_s:.1}") } else { human::count(per_s as u64) };
    let whence = if dwell.is_nominal { "as compiled in; not measured" } else { "measured here" };
    format!(
        "{rate} connections per second ({}, each kept for {}, {whence})",
        human::counted(usable.into(), "port"),
        human::duration(dwell.ns)
    )
}

fn towards(room: &Headroom, dwell: Dwell) -> Check {
    let count = |n: u32| human::count(n.into());
    let mut verdict = fullness(room.in_use.into(), room.usable.into());
    let is_taken_over = room.free() == 0 && room.reusable > 0;
    let mut detail = match room.free() {
        0 if is_taken_over => "No port is free".to_owned(),
        0 => "No port is left: connect() fails with EADDRNOTAVAIL".to_owned(),
        free => format!("{} are free", count(free)),
    };
    detail += &format!("; {} are in TIME_WAIT.", count(room.time_wait));
    if room.reuses {
        detail += &format!(
            " connect() may take over those that have rested (tcp_tw_reuse): {} now.",
            count(room.reusable)
        );
    }
    if is_taken_over {
        verdict = Verdict::Warn;
    }
    if verdict >= Verdict::Warn {
        if !room.reuses {
            detail += &format!(" They sustain {}.", sustains(room.usable, dwell));
        }
        detail += " To do: keep connections open and use them again, let the server close first, use more source or \
                   destination addresses, or widen ip_local_port_range.";
    }
    let ports = Ports {
        local: room.to.local,
        remote: room.to.remote,
        usable: room.usable,
        in_use: room.in_use,
        time_wait: room.time_wait,
        reusable: room.reusable,
        free: room.free(),
        sustainable_per_s: room.sustainable_per_s(dwell.seconds()),
        dwell_ns: dwell.ns,
        dwell_is_nominal: dwell.is_nominal,
    };
    let name = format!("ports from {} to {}", room.to.local, room.to.remote);
    let value = format!("{} of {}", count(room.in_use), count(room.usable));
    Check { ports: Some(ports), ..Check::new(Group::Ports, name, verdict, detail).value(value) }
}

/// connect() calls that found no port: only a trace tells.
fn failures(patient: &Patient) -> Check {
    const NAME: &str = "connect_failures";
    const MOST: usize = 3;
    let Some(snapshot) = &patient.measured else {
        let detail = "How often connect() found no port (EADDRNOTAVAIL) is not known: the kernel counts it nowhere \
                      (TcpAttemptFails and TcpActiveOpens do not move). --duration sees it.";
        return Check::new(Group::Ports, NAME, Verdict::Note, detail);
    };
    let failures = &snapshot.connect_failures;
    let trace = format!("in {} of tracing", human::duration(snapshot.meta.elapsed_ns()));
    if failures.count == 0 {
        let detail = format!("No connect() failed for want of a port {trace}.");
        return Check::new(Group::Ports, NAME, Verdict::Ok, detail).value("0");
    }
    let by = failures.by.top.iter().take(MOST).map(|((process, to), count)| {
        format!("{} to {to} ({})", human::process(process.as_ref()), human::count(*count))
    });
    let by: Vec<_> = by.collect();
    let detail = format!("connect() found no port, or no route, {trace}: {}.", human::list(&by));
    Check::new(Group::Ports, NAME, Verdict::Warn, detail).value(human::count(failures.count))
}
