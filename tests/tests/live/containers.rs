//! Containers, as far as the kernel and this tool can tell: processes in cgroups that are named as the runtimes
//! name theirs, found, named, filtered and grouped by every command.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;
use tcptrace::sandbox::Sandbox;
use tests::binary;
use tests::cgroup::Cgroup;
use tests::clock::wait_until;
use tests::leaker::{Language, Leaker};
use tests::traced::Traced;
use tests::trial::live;

pub fn trials() -> Vec<Trial> {
    vec![
        live("containers_of_every_runtime_are_named_and_filtered", named),
        live("a_container_that_ends_while_watched_is_a_note", vanishing),
    ]
}

/// Where runtimes put their containers, with `ID` and `UID` for a container's id and a pod's uid.
const PLACES: [&str; 6] = [
    "system.slice/docker-ID.scope",
    "docker/ID",
    "machine.slice/libpod-ID.scope",
    "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice/cri-containerd-ID.scope",
    "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID.slice/crio-ID.scope",
    "kubepods/burstable/podUID/ID",
];

/// A program that leaks in a container of its own.
struct Container {
    id: String,
    pod: Option<String>,
    program: Leaker,
    cgroup: Cgroup,
}

/// `None`, and said so, where no cgroup can be made.
fn start(place: &str, number: usize) -> Result<Option<Container>> {
    // Not those of another run.
    let id = format!("{number:02x}{:08x}", std::process::id()).repeat(7)[..64].to_owned();
    let uid = format!("{number:08x}-0000-4000-8000-{:012x}", std::process::id());
    let is_systemd = place.contains(".slice");
    let shown = if is_systemd { uid.replace('-', "_") } else { uid.clone() };
    let Some(cgroup) = Cgroup::make(&place.replace("UID", &shown).replace("ID", &id)) else {
        println!("SKIPPED: no cgroup can be made here (cgroup2 is not mounted, or may not be written)");
        return Ok(None);
    };
    let program = Leaker::start(Language::C, &[])?;
    // Before it makes any socket but its listeners: a socket remembers the cgroup that it was made in.
    cgroup.take(program.pid())?;
    let pod = place.contains("UID").then_some(uid);
    Ok(Some(Container { id, pod, program, cgroup }))
}

fn tcptrace(args: &[&str]) -> Result<Output> {
    Ok(Command::new(binary::path()).args(args).output()?)
}

fn lines(args: &[&str]) -> Result<Vec<Value>> {
    let output = tcptrace(args)?;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| serde_json::from_str(line).context(line.to_owned())).collect()
}

fn named(sandbox: &Sandbox) -> Result<()> {
    let netns = sandbox.netns().to_string();
    let mut containers = Vec::new();
    for (number, place) in PLACES.iter().enumerate() {
        let Some(container) = start(place, number + 1)? else { return Ok(()) };
        containers.push(container);
    }
    // Outside of any.
    let mut outside = Leaker::start(Language::C, &[])?;
    let tracer = Traced::report(sandbox, &["--by", "container", "--state", "CLOSE_WAIT"])?;
    let chosen = &containers[0].id[..12].to_owned();
    let watcher = watch(sandbox, chosen)?;
    for (index, container) in containers.iter_mut().enumerate() {
        container.program.leak(&format!("consumed {}", index + 1))?;
        // Two that are closed: dwells that have ended, with an owner that is known by the close.
        container.program.tell("close 1")?;
        container.program.leak("consumed 1")?;
    }
    outside.leak("consumed 3")?;
    let run = tracer.finish_lossy()?;
    let watched = watcher.finish_lossy()?;

    let at_once = lines(&["leaks", "--json", "--min-age", "0s", "--netns", &netns])?;
    let by_pid: BTreeMap<u64, &Value> = at_once
        .iter()
        .filter_map(|line| Some((line["process"]["pid"].as_u64()?, &line["process"]["container"])))
        .collect();
    let states = lines(&["states", "--json", "--by", "container", "--netns", &netns])?;
    for (index, Container { id, pod, program, .. }) in containers.iter().enumerate() {
        let sockets = index as u64 + 1;
        ensure!(by_pid.get(&program.pid().into()).is_some_and(|found| *found == id), "{id} {by_pid:?}");
        for wanted in [&id[..12], id].into_iter().chain(pod.as_deref()) {
            let filter = ["leaks", "--json", "--min-age", "0s", "--netns", &netns, "--container", wanted];
            let found = lines(&filter)?;
            ensure!(found.len() == 2 && found[0]["process"]["pid"] == program.pid(), "{wanted}: {found:?}");
            ensure!(found[0]["sockets"] == sockets, "{wanted}: {found:?}");
        }
        let counted =
            lines(&["states", "--json", "--netns", &netns, "--container", id, "--state", "CLOSE_WAIT"])?;
        ensure!(counted[0]["counts"]["CLOSE_WAIT"] == sockets, "{counted:?}");
        let row = states[0]["by"].as_array().context("by")?.iter().find(|row| row["container"] == **id);
        ensure!(row.is_some_and(|row| row["counts"]["CLOSE_WAIT"] == sockets), "{id}: {states:?}");
        let traced = run.lines.iter().find(|line| {
            line["type"] == "state_report"
                && line["state"] == "CLOSE_WAIT"
                && line["key"]["container"] == **id
        });
        let ended = traced.map(|line| &line["finished"]["count"]);
        ensure!(ended.is_some_and(|count| count == 1) || !run.is_lossless(), "{id}: {:#?}", run.lines);
    }
    ensure!(by_pid.get(&outside.pid().into()).is_some_and(|found| found.is_null()), "{by_pid:?}");

    let pid = containers[0].program.pid();
    let owners: Vec<_> =
        watched.transitions.iter().map(|line| line.owner.as_ref().map(|owner| owner.pid)).collect();
    ensure!(!owners.is_empty() && owners.iter().all(|owner| *owner == Some(pid)), "{pid}: {owners:?}");

    recorded(sandbox, &mut containers[1])?;
    nameless(&netns)
}

/// `watch` for one container, attached.
fn watch(sandbox: &Sandbox, container: &str) -> Result<Traced> {
    let netns = sandbox.netns().to_string();
    let watch = Traced::start(&["watch", "--json", "--netns", &netns, "--container", container])?;
    watch.wait_until_attached()?;
    Ok(watch)
}

/// A recording knows the containers of its connections by name.
fn recorded(sandbox: &Sandbox, container: &mut Container) -> Result<()> {
    let netns = sandbox.netns().to_string();
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("containers.jsonl");
    let file = file.to_str().context("path")?;
    let recorder = Traced::start(&["record", "-o", file, "--netns", &netns, "--container", &container.id])?;
    recorder.wait_until_attached()?;
    container.program.leak("consumed 1")?;
    container.program.tell("close 1")?;
    recorder.signal(Signal::TERM)?;
    recorder.exited(Duration::from_secs(20))?;
    let report = lines(&["report", "--from", file, "--json", "--by", "container"])?;
    let of = |line: &&Value| line["key"]["container"] == *container.id && line["state"] == "CLOSE_WAIT";
    ensure!(report.iter().any(|line| of(&line)), "{report:#?}");
    let watched = tcptrace(&["watch", "--from", file, "--plain"])?;
    let shown = format!("leaker[{}]@{}", container.program.pid(), &container.id[..12]);
    let watched = String::from_utf8(watched.stdout)?;
    ensure!(watched.contains(&shown), "no {shown} in {watched}");
    let narrowed = ["report", "--from", file, "--json", "--container", &container.id[..12]];
    ensure!(lines(&narrowed)?.iter().any(|line| line["state"] == "CLOSE_WAIT"), "{report:#?}");
    let output = tcptrace(&["report", "--from", file, "--json", "--container", "fedcba987654"])?;
    let stderr = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(2) && stderr.contains("fedcba987654"), "{stderr}");
    Ok(())
}

/// What does not exist is an error that names it, on every command that filters.
fn nameless(netns: &str) -> Result<()> {
    let set = ["--sandbox", "--set", "net.ipv4.tcp_fin_timeout=10"];
    let commands: [(&str, &[&str]); 7] = [
        ("watch", &[]),
        ("leaks", &[]),
        ("report", &[]),
        ("states", &[]),
        ("serve", &[]),
        ("record", &["-o", "/nonexistent/tcptrace"]),
        ("experiment", &set),
    ];
    for (command, args) in commands {
        for (filter, wanted) in
            [("--container", "fedcba987654"), ("--netns", "no-such-namespace"), ("--pid", "4194303")]
        {
            if args.contains(&"--sandbox") && filter == "--netns" {
                // Refused, for a sandbox has one of its own.
                continue;
            }
            let output = tcptrace(&[&[command], args, &[filter, wanted]].concat())?;
            let stderr = String::from_utf8(output.stderr)?;
            ensure!(
                output.status.code() == Some(2) && stderr.contains(wanted),
                "{command} {filter} {wanted}: {:?} {stderr}",
                output.status.code()
            );
        }
    }
    // And what does is none.
    ensure!(tcptrace(&["states", "--netns", netns])?.status.success());
    Ok(())
}

/// What was there at the start and is not at the end.
fn vanishing(sandbox: &Sandbox) -> Result<()> {
    let Some(mut container) = start(PLACES[0], 99)? else { return Ok(()) };
    let tracer = watch(sandbox, &container.id)?;
    container.program.leak("consumed 1")?;
    let (id, pid) = (container.id.clone(), container.program.pid());
    drop(container.program);
    container.cgroup.remove()?;
    wait_until("the end of its socket", Duration::from_secs(20), || {
        tracer.transitions().iter().any(|line| line.from == "CLOSE_WAIT")
    })?;
    let run = tracer.finish_lossy()?;
    ensure!(run.stderr.contains(&format!("container {id} is no longer there")), "{}", run.stderr);
    let owners = run.transitions.iter().filter_map(|line| line.owner.as_ref());
    ensure!(
        owners.clone().count() > 0 && owners.clone().all(|owner| owner.pid == pid),
        "{:?}",
        run.transitions
    );
    Ok(())
}
