//! Whether tcptrace works here: kernel, privileges, hooks, memory.

use caps::{Capability, CapsHashSet};

use super::{Check, Group, Patient, Verdict};
use crate::kernel::privileges::{Lockdown, Missing, NO_MEMLOCK, OLDEST_KERNEL, needed_for_inventory};
use crate::kernel::probe::{Hook, Outcome};
use crate::views::human;
use crate::wheel::Expected;

/// Machines that it was tried on.
const MACHINES: [&str; 2] = ["x86_64", "aarch64"];

pub(super) fn checks(patient: &Patient) -> Vec<Check> {
    let mut checks =
        vec![kernel(patient), machine(patient), btf(patient), lockdown(patient), user_namespace(patient)];
    checks.push(symbols(patient));
    checks.extend(commands(patient));
    checks.push(filter(patient));
    checks.extend(patient.probe.hooks.iter().map(hook));
    checks.push(typed(patient));
    checks.push(memory(patient));
    checks.extend(wheel(patient));
    checks
}

fn check(name: &str, verdict: Verdict, detail: impl Into<String>) -> Check {
    Check::new(Group::Readiness, name, verdict, detail)
}

/// Of one requirement of tracing: as it should be, or what is missing and what to do.
fn of(name: &str, missing: Option<Missing>, fine: impl Into<String>) -> Check {
    match missing {
        None => check(name, Verdict::Ok, fine),
        Some(missing) => check(name, Verdict::Fail, sentences(&missing)),
    }
}

fn sentences(missing: &Missing) -> String {
    let text = missing.to_string();
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}. To do: {}.", chars.as_str(), missing.advice())
}

fn kernel(patient: &Patient) -> Check {
    let release = &patient.host.release;
    let missing = patient.host.older_than(OLDEST_KERNEL).then(|| Missing::KernelTooOld(release.clone()));
    of("kernel", missing, "5.8 or later: it has the BPF ring buffer, CAP_BPF and CAP_PERFMON.").value(release)
}

fn machine(patient: &Patient) -> Check {
    let order = if cfg!(target_endian = "little") { "little endian" } else { "big endian" };
    let is_tried = MACHINES.contains(&patient.machine.as_str()) && cfg!(target_endian = "little");
    let (verdict, detail) = match is_tried {
        true => (Verdict::Ok, "The BPF object is made for it."),
        false => (Verdict::Warn, "Tried on x86_64 and aarch64, little endian, only."),
    };
    check("architecture", verdict, detail).value(format!("{}, {order}", patient.machine))
}

fn btf(patient: &Patient) -> Check {
    match &patient.probe.layout {
        _ if !patient.host.has_btf => of("btf", Some(Missing::Btf), ""),
        Some(why) => check("btf", Verdict::Fail, format!("It does not say what is needed: {why}.")),
        None => check("btf", Verdict::Ok, "The kernel tells where its structs have their members."),
    }
}

fn lockdown(patient: &Patient) -> Check {
    let lockdown = patient.host.lockdown;
    let value = match lockdown {
        None => "not seen",
        Some(Lockdown::None) => "none",
        Some(Lockdown::Integrity) => "integrity",
        Some(Lockdown::Confidentiality) => "confidentiality",
    };
    let missing = (lockdown == Some(Lockdown::Confidentiality)).then_some(Missing::Lockdown);
    let fine = match lockdown {
        None => "The module is not there, or securityfs is not mounted: the hooks below tell.",
        Some(_) => "BPF may read kernel memory.",
    };
    of("lockdown", missing, fine).value(value)
}

fn user_namespace(patient: &Patient) -> Check {
    match patient.host.initial_user_namespace {
        Some(false) => of("user_namespace", Some(Missing::UserNamespace), ""),
        Some(true) => check("user_namespace", Verdict::Ok, "Capabilities count for the kernel's BPF."),
        None => check("user_namespace", Verdict::Note, "/proc does not tell which one this is."),
    }
}

fn symbols(patient: &Patient) -> Check {
    const NAME: &str = "symbols";
    let level =
        patient.host.kptr_restrict.map_or_else(String::new, |level| format!(" (kptr_restrict is {level})"));
    match &patient.probe.symbol {
        None => {
            let detail = format!("/proc/kallsyms gives the address of tw_timer_handler{level}.");
            check(NAME, Verdict::Ok, detail).value("shown")
        }
        Some(_) if patient.host.kptr_restrict == Some(2) => {
            of(NAME, Some(Missing::KptrRestrict), "").value("hidden")
        }
        Some(why) => {
            let detail =
                format!("TIME_WAIT cannot be timed: {why}{level}. To do: run as root, or with CAP_SYSLOG.");
            check(NAME, Verdict::Fail, detail).value("hidden")
        }
    }
}

/// What a command needs beyond the kernel.
struct Command {
    name: &'static str,
    commands: &'static str,
    needs: &'static [Capability],
    without: &'static str,
}

const COMMANDS: [Command; 3] = [
    Command {
        name: "can_read_code",
        commands: "leaks --stacks",
        needs: &[
            Capability::CAP_SYS_PTRACE,
            Capability::CAP_DAC_READ_SEARCH,
            Capability::CAP_CHECKPOINT_RESTORE,
        ],
        without: "stacks of other users' processes, and of those in containers, have no names of functions",
    },
    Command {
        name: "can_experiment",
        commands: "experiment",
        needs: &[Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN],
        without: "sysctls cannot be set",
    },
    Command {
        name: "can_sandbox",
        commands: "demo, experiment --sandbox, run --private-net",
        needs: &[Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN],
        without: "no private network namespace can be made",
    },
];

fn commands(patient: &Patient) -> Vec<Check> {
    const TRACING: &str = "watch, report, record, serve, run, leaks --duration";
    let effective = &patient.host.effective;
    let missing = patient.host.missing(true);
    let mut checks = vec![match &missing[..] {
        [] => check("can_trace", Verdict::Ok, format!("{TRACING}: nothing is missing.")).value("yes"),
        some => {
            let all: Vec<_> = some.iter().map(sentences).collect();
            check("can_trace", Verdict::Fail, format!("{TRACING}: {}", all.join(" "))).value("no")
        }
    }];
    let (_, unseen) = lacking(effective, &needed_for_inventory().into_iter().collect::<Vec<_>>());
    checks.push(if unseen.is_empty() {
        let detail = "states, leaks and all others: every namespace, every process that holds a socket.";
        check("can_see_owners", Verdict::Ok, detail).value("yes")
    } else {
        let detail = format!(
            "states, leaks and all others see the sockets of this namespace and their holders among one's own \
             processes; for more they need {}.",
            human::list(&unseen)
        );
        check("can_see_owners", Verdict::Note, detail).value("in part")
    });
    checks.extend(COMMANDS.iter().map(|command| {
        let Command { name, commands, needs, without } = command;
        let (none, unmet) = lacking(effective, needs);
        if none {
            check(name, Verdict::Ok, format!("{commands}: nothing is missing.")).value("yes")
        } else {
            let detail = format!("{commands}: {without}, for want of {}.", human::list(&unmet));
            check(name, Verdict::Note, detail).value("no")
        }
    }));
    checks
}

/// Whether nothing is lacking, and the names of what is, in the kernel's order.
fn lacking(effective: &CapsHashSet, needs: &[Capability]) -> (bool, Vec<String>) {
    let mut unmet: Vec<_> = needs.iter().filter(|needed| !effective.contains(needed)).collect();
    unmet.sort_unstable_by_key(|capability| capability.index());
    (unmet.is_empty(), unmet.into_iter().map(ToString::to_string).collect())
}

/// Not a requirement: what is left to a running tracer without it stands in docs/privileges.md.
fn filter(patient: &Patient) -> Check {
    const NAME: &str = "system_call_filter";
    if patient.can_filter {
        let detail =
            "A running tracer can open no file for writing, start no program and load none (seccomp).";
        check(NAME, Verdict::Ok, detail).value("yes")
    } else {
        let detail = "This kernel, this architecture or a sandbox around this process takes no filter (seccomp): a running \
                      tracer gives up its capabilities, but as uid 0 it could still write root's files.";
        check(NAME, Verdict::Note, detail).value("no")
    }
}

fn hook(hook: &Hook) -> Check {
    let what = if hook.is_optional { "Optional" } else { "Needed" };
    let adds = match hook.program {
        "sock_recv_length" => " Tells when an application was told EOF.",
        "sock_recv_length_stack" => " Tells which code was told EOF (--stacks).",
        "connect_stack" => " Tells which code connected (--stacks).",
        _ => "",
    };
    let (verdict, value, detail) = match &hook.outcome {
        Outcome::Works => (Verdict::Ok, "works", format!("{what}; loaded and attached for a moment.{adds}")),
        Outcome::Refused(why) => {
            let verdict = if hook.is_optional { Verdict::Note } else { Verdict::Fail };
            (verdict, "refused", format!("{what}, and this kernel does not take it: {why}.{adds}"))
        }
        Outcome::NotTried if hook.in_btf == Some(false) => {
            let verdict = if hook.is_optional { Verdict::Note } else { Verdict::Fail };
            let detail = format!("{what}, and this kernel has no tracepoint {}.{adds}", hook.tracepoint);
            (verdict, "absent", detail)
        }
        Outcome::NotTried => {
            let known = match hook.in_btf {
                Some(_) => "the tracepoint is there",
                None => "whether the tracepoint is there is not known",
            };
            let detail = format!("{what}; not tried, because something above is missing; {known}.{adds}");
            (Verdict::Note, "not tried", detail)
        }
    };
    check(&format!("hook_{}", hook.program), verdict, detail).value(value)
}

/// Which kind of the needed programs tracing uses here.
fn typed(patient: &Patient) -> Check {
    const NAME: &str = "bpf_programs";
    match &patient.probe.typed {
        Outcome::Works => {
            let detail = "Tracing uses programs whose arguments have types: they load members of kernel structs \
                          themselves, at a fraction of the cost.";
            check(NAME, Verdict::Ok, detail).value("typed")
        }
        Outcome::Refused(why) => {
            let detail = format!(
                "Tracing uses programs that ask the kernel for each member: they see the same and cost more. The \
                 cheaper ones take Linux 5.15: {why}."
            );
            check(NAME, Verdict::Ok, detail).value("plain")
        }
        Outcome::NotTried => {
            check(NAME, Verdict::Note, "Typed or plain; not tried, because something above is missing.")
        }
    }
}

fn memory(patient: &Patient) -> Check {
    let counted = if patient.host.older_than(NO_MEMLOCK) {
        "counted against RLIMIT_MEMLOCK, which CAP_SYS_RESOURCE lifts (before 5.11)"
    } else {
        "counted against the memory limit of this cgroup, RLIMIT_MEMLOCK means nothing (5.11 and later)"
    };
    match (&patient.probe.obstacle, patient.probe.ring_bytes) {
        (Some((why, advice)), _) => {
            let advice = advice.as_ref().map_or_else(String::new, |advice| format!(" To do: {advice}."));
            check("bpf_memory", Verdict::Fail, format!("BPF memory is {counted}. {why}.{advice}"))
        }
        (None, Some(bytes)) => {
            let detail = format!("A ring buffer of this size was made; it is {counted}.");
            check("bpf_memory", Verdict::Ok, detail).value(format!("{} MiB", bytes >> 20))
        }
        (None, None) => check("bpf_memory", Verdict::Note, format!("Not tried; it is {counted}.")),
    }
}

/// Not a requirement, but what makes people doubt a right figure.
fn wheel(patient: &Patient) -> Option<Check> {
    let hz = patient.hz?;
    let expected = Expected::of(60 * hz, hz)?;
    let detail = format!(
        "The kernel's timers fire late, never early: a TIME_WAIT of 60 s lasts from {} to {} here.",
        human::duration(expected.base_ns),
        human::duration(expected.latest_ns)
    );
    Some(check("hz", Verdict::Ok, detail).value(hz.to_string()))
}
