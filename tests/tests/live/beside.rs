//! Another program with BPF of its own on the hooks that tcptrace uses: bpftrace, where it is installed.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tcptrace::sandbox::Sandbox;
use tests::clock::{sleep_ms, wait_until};
use tests::sockets::{Flavour, Meeting, read_eof};
use tests::spawn;
use tests::traced::Traced;
use tests::trial::live;

/// Of no other trial: bpftrace sees those of every namespace.
const PORT: u16 = 8976;
const CONNECTIONS: u64 = 300;

/// Counts transitions of our connections by old and new state, and what the timer hooks are called for. The other
/// tool's programs are of the older kind that needs tracefs, which is mounted where only it can see.
const SCRIPT: &str = r#"mount -t tracefs none /sys/kernel/tracing && exec bpftrace -f json -e '
BEGIN { printf("ready"); }
tracepoint:sock:inet_sock_set_state /args->sport == 8976 || args->dport == 8976/ {
    @transitions[args->oldstate, args->newstate] = count();
}
tracepoint:timer:timer_start { @timers["start"] = count(); }
tracepoint:timer:timer_cancel { @timers["cancel"] = count(); }
tracepoint:timer:timer_expire_entry { @timers["expire"] = count(); }'"#;

pub fn trials() -> Vec<Trial> {
    let trial = live("another_bpf_tracer_on_the_same_hooks_costs_nothing", beside_bpftrace);
    let obstacle = obstacle();
    if let Some(obstacle) = &obstacle {
        println!("SKIPPED {}: {obstacle}", trial.name());
    }
    vec![trial.with_ignored_flag(obstacle.is_some())]
}

fn obstacle() -> Option<String> {
    if !Path::new("/sys/kernel/tracing").is_dir() {
        return Some("this kernel has no tracefs, which bpftrace needs".to_owned());
    }
    let version = Command::new("bpftrace").arg("--version").stdin(Stdio::null()).output();
    version.is_err().then(|| "no bpftrace (Debian package bpftrace)".to_owned())
}

/// A running bpftrace.
struct Bpftrace {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Bpftrace {
    /// Returns once its programs are attached.
    fn start() -> Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "sh", "-c", SCRIPT]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn::start(&mut command)?;
        let mut out = BufReader::new(child.stdout.take().context("stdout")?);
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            if out.read_line(&mut line)? == 0 {
                let mut said = String::new();
                child.stderr.take().context("stderr")?.read_to_string(&mut said)?;
                anyhow::bail!("bpftrace did not begin: {said}");
            }
        }
        Ok(Self { child, out })
    }

    /// What it has counted, by the names of its maps.
    fn finish(mut self) -> Result<Value> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("pid")?;
        kill_process(pid, Signal::INT)?;
        let mut text = String::new();
        self.out.read_to_string(&mut text)?;
        self.child.wait()?;
        let mut maps = serde_json::Map::new();
        for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if let (true, Some(data)) = (line["type"] == "map", line["data"].as_object()) {
                maps.extend(data.clone());
            }
        }
        Ok(maps.into())
    }
}

/// Both are attached to the same hooks; each sees every transition, or tcptrace says what it lost.
fn beside_bpftrace(sandbox: &Sandbox) -> Result<()> {
    sandbox.set_sysctl("net.ipv4.tcp_tw_reuse", "0")?;
    let other = Bpftrace::start()?;
    let tracer = Traced::watch(sandbox, &[])?;
    let meeting = Meeting::on(Flavour::V4, PORT)?;
    for _ in 0..CONNECTIONS {
        let mut pair = meeting.pair()?;
        drop(pair.client);
        read_eof(&mut pair.server)?;
    }
    let told = |from: &str, to: &str| {
        let lines = tracer.transitions();
        let of_kind = |line: &&tests::traced::Transition| {
            let is_ours = line.local.port() == PORT || line.remote.port() == PORT;
            is_ours && line.from == from && line.to == to
        };
        lines.iter().filter(of_kind).count() as u64
    };
    // Unless something was lost, which its summary says.
    let _ = wait_until("the last of them", Duration::from_secs(5), || {
        told("FIN_WAIT2", "TIME_WAIT") == CONNECTIONS && told("LAST_ACK", "CLOSE") == CONNECTIONS
    });
    sleep_ms(200);
    // The kernel's own transition at the beginning of a TIME_WAIT is that of the full socket, to CLOSE.
    let kinds = [
        ("ESTABLISHED", "FIN_WAIT1", "1,4"),
        ("FIN_WAIT1", "FIN_WAIT2", "4,5"),
        ("FIN_WAIT2", "TIME_WAIT", "5,7"),
        ("ESTABLISHED", "CLOSE_WAIT", "1,8"),
        ("CLOSE_WAIT", "LAST_ACK", "8,9"),
        ("LAST_ACK", "CLOSE", "9,7"),
    ];
    let ours: Vec<_> = kinds.iter().map(|(from, to, _)| told(from, to)).collect();
    let run = tracer.finish()?;
    let theirs = other.finish()?;
    println!("bpftrace counted {theirs}, tcptrace {ours:?} of the same kinds, {:?}", run.summary.loss);
    for (&ours, (from, to, numbers)) in ours.iter().zip(kinds) {
        let seen = theirs["@transitions"][numbers].as_u64().unwrap_or(0);
        ensure!(
            ours <= CONNECTIONS && ours + run.lost() >= CONNECTIONS,
            "{from}→{to}: {ours} of {CONNECTIONS} told, {:?}",
            run.summary.loss
        );
        // It does not say what its own programs missed: those of its kind are left out while another of the kind runs.
        ensure!(
            (CONNECTIONS * 9 / 10..=CONNECTIONS).contains(&seen),
            "{from}→{to}: bpftrace saw {seen} of {CONNECTIONS}: {theirs}"
        );
    }
    for hook in ["start", "cancel"] {
        let runs = theirs["@timers"][hook].as_u64().unwrap_or(0);
        ensure!(runs >= CONNECTIONS, "bpftrace was not at timer_{hook}: {theirs}");
    }
    Ok(())
}
