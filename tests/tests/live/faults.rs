//! What goes wrong around the tracer, done on purpose: what `docs/faults.md` promises.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tcptrace::sandbox::Sandbox;
use tcptrace::workload::Role;
use tests::binary;
use tests::clock::{sleep_ms, wait_until};
use tests::exporter::{Exporter, Traffic};
use tests::sockets::{Flavour, Meeting, read_eof};
use tests::spawn;
use tests::traced::Traced;
use tests::trial::live;
use tests::truth;

/// Generous: other trials want the processors as well.
const SOON: Duration = Duration::from_secs(30);

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        live("a_stopped_reader_says_what_share_it_saw_and_recovers", stopped_reader),
        live("an_exporter_that_stood_still_for_five_seconds_missed_nothing", stopped_exporter),
        live("two_at_once_see_the_same", two_at_once),
        live("processes_and_namespaces_that_come_and_go_while_they_are_looked_at", churning_inventory),
    ];
    let needed = [
        (live("a_map_that_the_kernel_refuses_is_named", refused_map), memory_cgroup().err()),
        (live("another_monotonic_clock_than_the_hosts_changes_no_figure", other_clock), no_time_namespaces()),
    ];
    for (trial, obstacle) in needed {
        if let Some(obstacle) = &obstacle {
            println!("SKIPPED {}: {obstacle}", trial.name());
        }
        trials.push(trial.with_ignored_flag(obstacle.is_some()));
    }
    trials
}

/// One end to TIME_WAIT, and the other gone.
fn one_time_wait(meeting: &Meeting) -> Result<()> {
    let mut pair = meeting.pair()?;
    drop(pair.client);
    read_eof(&mut pair.server)
}

fn minis_of(port: u16) -> Result<u64> {
    let of_service = |socket: &truth::Socket| socket.is_mini() && socket.remote.port() == port;
    Ok(truth::sockets()?.iter().filter(|socket| of_service(socket)).count() as u64)
}

/// A tiny ring and a reader that stands still: the share that was seen is stated, and when the reader goes on what
/// is open is what the kernel has, without anybody's doing.
fn stopped_reader(sandbox: &Sandbox) -> Result<()> {
    const PORT: u16 = 8080;
    sandbox.set_sysctl("net.ipv4.tcp_tw_reuse", "0")?;
    let meeting = Meeting::on(Flavour::V4, PORT)?;
    let tracer = Traced::report(sandbox, &["--ring-size", "64K", "--rport", "8080"])?;
    (0..100).try_for_each(|_| one_time_wait(&meeting))?;
    sleep_ms(1000);
    tracer.signal(Signal::STOP)?;
    let stopped = Instant::now();
    (0..3000).try_for_each(|_| one_time_wait(&meeting))?;
    while stopped.elapsed() < Duration::from_secs(5) {
        sleep_ms(50);
    }
    tracer.signal(Signal::CONT)?;
    // A dump mends it, two seconds after the last one at the earliest.
    sleep_ms(6000);
    (0..200).try_for_each(|_| one_time_wait(&meeting))?;
    sleep_ms(500);
    let there = minis_of(PORT)?;
    ensure!(there == 3300, "the kernel has {there}: the trial took too long");
    let run = tracer.finish_lossy()?;
    let lost = |cause: &str| run.summary.loss.get(cause).copied().unwrap_or(0);
    ensure!(lost("ring_full") > 0 && lost("resyncs") > 0, "{:?}", run.summary);
    let told = run.summary.events + lost("ring_full") + lost("skipped_runs");
    let share = run.summary.seen_share.context("no share")?;
    ensure!(
        (share - run.summary.events as f64 / told as f64).abs() < 1e-9 && share < 1.0,
        "{:?}",
        run.summary
    );
    let open = run.report("TIME_WAIT", None)?["open"]["count"].as_u64().context("open")?;
    ensure!(open == there, "{open} TIME_WAITs shown, the kernel has {there}: {:?}", run.summary);
    let ended = run.report("TIME_WAIT", None)?["finished"]["count"].as_u64().context("finished")?;
    ensure!(ended == 0, "{ended} TIME_WAITs are said to have ended");
    Ok(())
}

/// The default ring holds what comes in the meantime on a host that is not at its limit.
fn stopped_exporter(sandbox: &Sandbox) -> Result<()> {
    const PORT: u16 = 8080;
    sandbox.set_sysctl("net.ipv4.tcp_tw_reuse", "0")?;
    let exporter = Exporter::start(sandbox, 9435, &["--port", "8080"])?;
    let meeting = Meeting::on(Flavour::V4, PORT)?;
    let pid = Pid::from_raw(i32::try_from(exporter.pid())?).context("pid")?;
    one_time_wait(&meeting)?;
    kill_process(pid, Signal::STOP)?;
    for _ in 0..50 {
        (0..10).try_for_each(|_| one_time_wait(&meeting))?;
        sleep_ms(100);
    }
    kill_process(pid, Signal::CONT)?;
    let transitions = "tcptrace_transitions_total{from=\"FIN_WAIT2\",to=\"TIME_WAIT\"}";
    // Each run that the kernel skipped may have been of one of them.
    let skipped = || exporter.value("tcptrace_lost_events_total{cause=\"skipped_runs\"}").unwrap_or(0.0);
    wait_until("all TIME_WAITs", SOON, || {
        exporter.value(transitions).is_ok_and(|count| count + skipped() >= 501.0)
    })?;
    ensure!(exporter.value(transitions)? <= 501.0 && minis_of(PORT)? == 501);
    let health = exporter.health()?;
    ensure!(health["healthy"] == true && health["loss"]["ring_full"] == 0, "{health}");
    ensure!(exporter.stop()?.success());
    Ok(())
}

/// Where processes can be given less memory: a directory to make cgroups in, and the file with the limit.
fn memory_cgroup() -> Result<(PathBuf, &'static str), String> {
    let v1 = Path::new("/sys/fs/cgroup/memory");
    if v1.join("memory.limit_in_bytes").exists() {
        return Ok((v1.to_owned(), "memory.limit_in_bytes"));
    }
    let v2 = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(v2.join("cgroup.subtree_control")).unwrap_or_default();
    if controllers.split_whitespace().any(|name| name == "memory") {
        return Ok((v2.to_owned(), "memory.max"));
    }
    Err("no cgroup with the memory controller at /sys/fs/cgroup".to_owned())
}

/// A cgroup that goes with the value.
struct Cgroup(PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that has just ended may still be accounted for.
        let _ = wait_until("an empty cgroup", SOON, || fs::remove_dir(&self.0).is_ok());
    }
}

/// A cgroup with less memory than the ring takes: the map that could not be made is named, with what to do.
fn refused_map(_: &Sandbox) -> Result<()> {
    let (parent, limit) = memory_cgroup().map_err(anyhow::Error::msg)?;
    let cgroup = Cgroup(parent.join(format!("tcptrace-test-{}", std::process::id())));
    fs::create_dir(&cgroup.0)?;
    fs::write(cgroup.0.join(limit), "100M")?;
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", cgroup.0.display());
    let mut command = Command::new("sh");
    command.args(["-c", &enter]).arg(binary::path()).args([
        "report",
        "--duration",
        "1s",
        "--ring-size",
        "512M",
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = spawn::start(&mut command)?.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && output.stdout.is_empty(), "{output:?}");
    ensure!(said.contains("BPF map EVENTS") && said.contains("smaller ring"), "{said}");
    Ok(())
}

fn no_time_namespaces() -> Option<String> {
    (!Path::new("/proc/self/ns/time").exists()).then(|| "no time namespaces (Linux 5.6)".to_owned())
}

/// In a time namespace the process reads another clock than its events carry.
fn other_clock(sandbox: &Sandbox) -> Result<()> {
    const PORT: u16 = 8080;
    let meeting = Meeting::on(Flavour::V4, PORT)?;
    for offset_s in ["86400", "-200"] {
        let mut pair = meeting.pair()?;
        drop(pair.client);
        read_eof(&mut pair.server)?;
        let mut command = Command::new("unshare");
        command.args(["--time", "--fork", "--kill-child", "--monotonic", offset_s]).arg(binary::path());
        command.args(["report", "--json", "--duration", "4s", "--netns", &sandbox.netns().to_string()]);
        let began = Instant::now();
        let tracer = Traced::start_command(command)?;
        sleep_ms(2000);
        one_time_wait(&meeting)?;
        let run = tracer.ended(SOON)?;
        let limit = u64::try_from(began.elapsed().as_nanos())?;
        for (state, number) in
            [("TIME_WAIT", truth::state::TIME_WAIT), ("CLOSE_WAIT", truth::state::CLOSE_WAIT)]
        {
            let report = run.report(state, None)?;
            let there = truth::count(number)? as u64;
            ensure!(there > 0 && report["open"]["count"] == there, "the kernel has {there}: {report}");
            let oldest = report["open"]["oldest_ns"].as_u64().with_context(|| report.to_string())?;
            // The first of all is as old as the trial.
            ensure!(oldest < limit + 60_000_000_000, "offset {offset_s} s: {report}");
        }
        ensure!(!run.summary.loss.contains_key("vanished"), "{:?}", run.summary);
        ensure!((3.5..30.0).contains(&run.summary.seconds), "{:?}", run.summary);
        drop(pair.server);
    }
    Ok(())
}

/// Two tracers on the same hooks see every connection, each, and measure the same.
fn two_at_once(sandbox: &Sandbox) -> Result<()> {
    const CONNECTIONS: usize = 200;
    let first = Traced::watch(sandbox, &[])?;
    let second = Traced::watch(sandbox, &[])?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    for _ in 0..CONNECTIONS {
        let client = TcpStream::connect(addr)?;
        let (mut server, _) = listener.accept()?;
        drop(client);
        read_eof(&mut server)?;
    }
    let dwells = |tracer: Traced| -> Result<BTreeMap<u16, u64>> {
        let run = tracer.finish()?;
        let ended = run.transitions.iter().filter(|line| line.from == "CLOSE_WAIT" && line.local == addr);
        let dwells: BTreeMap<_, _> =
            ended.map(|line| Ok((line.remote.port(), line.dwell()?))).collect::<Result<_>>()?;
        let at_least = CONNECTIONS.saturating_sub(usize::try_from(run.lost())?);
        ensure!((at_least..=CONNECTIONS).contains(&dwells.len()), "{} of {CONNECTIONS}", dwells.len());
        Ok(dwells)
    };
    let (first, second) = (dwells(first)?, dwells(second)?);
    for (port, one) in &first {
        // The one's program runs after the other's, at both ends of the dwell; now and then something comes between.
        if let Some(other) = second.get(port) {
            ensure!(one.abs_diff(*other) < 50_000_000, "{port}: {one} and {other} ns");
        }
    }
    Ok(())
}

/// Processes and network namespaces are made and given up all the time while sockets and their holders are
/// listed: every look ends well and shows what has been there all along.
fn churning_inventory(sandbox: &Sandbox) -> Result<()> {
    const LOOKS: usize = 8;
    // Whose main thread is in the namespace.
    let _server = Traffic::start(sandbox, Role::Leaky, 8083, 1.0)?;
    let _visitor = Traffic::start(sandbox, Role::Visitor, 8083, 50.0)?;
    wait_until("a leak", SOON, || truth::count(truth::state::CLOSE_WAIT).is_ok_and(|count| count > 20))?;
    let (done, made) = (AtomicBool::new(false), AtomicU64::new(0));
    let namespaces = "ip link set lo up; sleep 0.02 & true";
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                // At most a few hundred, whatever the machine does.
                while !done.load(Ordering::Relaxed) && made.load(Ordering::Relaxed) < 2000 {
                    let mut command = Command::new("unshare");
                    command.args(["--net", "sh", "-c", namespaces]);
                    let ended =
                        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
                    if ended.is_ok_and(|status| status.success()) {
                        made.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let outcome = (0..LOOKS).try_for_each(|_| look_at_leaks());
        done.store(true, Ordering::Relaxed);
        outcome
    })?;
    let made = made.into_inner();
    ensure!(made as usize > LOOKS, "only {made} namespaces came and went");
    Ok(())
}

fn look_at_leaks() -> Result<()> {
    let output = spawn::start(
        Command::new(binary::path())
            .args(["leaks", "--json", "--min-age", "0s"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )?
    .wait_with_output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && !err.contains("panicked"), "{err}");
    let lines = out.lines().map(serde_json::from_str).collect::<serde_json::Result<Vec<Value>>>()?;
    let leaky = lines.iter().filter(|line| line["process"]["comm"] == "demo-leaky");
    let sockets: u64 = leaky.filter_map(|line| line["sockets"].as_u64()).sum();
    ensure!(sockets > 20, "{sockets} sockets of the leaking server: {out}");
    Ok(())
}
