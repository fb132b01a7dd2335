//! `doctor`, against what connect() itself answers, `/proc` and `ss`.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use tcptrace::facts::FACTS;
use tcptrace::sandbox::Sandbox;
use tests::clock::sleep_ms;
use tests::sockets::reset;
use tests::trial::live;
use tests::{binary, spawn, truth};

pub fn trials() -> Vec<Trial> {
    vec![
        live("doctor_counts_ports_as_connect_finds_them", ports),
        live("doctor_sees_connects_that_find_no_port", failures),
        live("doctor_says_what_proc_says", machine),
        live("doctor_names_what_a_killed_experiment_left", left),
    ]
}

/// Not of 127.0.0.0/8, for which tcp_tw_reuse has a rule of its own.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const PORT: u16 = 8080;

fn run(args: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary::path());
    command.arg("doctor").arg("--json").args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(spawn::start(&mut command)?.wait_with_output()?)
}

/// Status and lines.
fn doctor(args: &[&str]) -> Result<(Option<i32>, Vec<Value>)> {
    let output = run(args)?;
    let lines = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let lines: Vec<Value> = lines.map(serde_json::from_slice).collect::<Result<_, _>>()?;
    ensure!(!lines.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok((output.status.code(), lines))
}

fn named<'a>(lines: &'a [Value], name: &str) -> Result<&'a Value> {
    lines.iter().find(|line| line["name"] == name).with_context(|| format!("no check {name}"))
}

/// The finding about the one destination.
fn room(lines: &[Value]) -> Result<&Value> {
    named(lines, &format!("ports from {ADDRESS} to {ADDRESS}:{PORT}"))
}

/// A namespace with 50 ports, of which five are reserved and one is listened on, at another address.
struct Narrow {
    listener: TcpListener,
    _other: TcpListener,
    held: Vec<(TcpStream, TcpStream)>,
    made: u64,
}

/// What connect() makes of it.
const USABLE: u64 = 50 - 5 - 1;

impl Narrow {
    fn new(sandbox: &Sandbox) -> Result<Self> {
        sandbox.add_address(ADDRESS)?;
        sandbox.set_sysctl("net.ipv4.ip_local_port_range", "40000 40049")?;
        sandbox.set_sysctl("net.ipv4.ip_local_reserved_ports", "40010-40014")?;
        sandbox.set_sysctl("net.ipv4.tcp_tw_reuse", "0")?;
        let listener = TcpListener::bind((ADDRESS, PORT))?;
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 40_020))?;
        Ok(Self { listener, _other: other, held: Vec::new(), made: 0 })
    }

    fn connect(&self) -> std::io::Result<(TcpStream, TcpStream)> {
        let client = TcpStream::connect(self.addr())?;
        Ok((client, self.listener.accept()?.0))
    }

    fn addr(&self) -> SocketAddr {
        (ADDRESS, PORT).into()
    }

    /// Connects until the kernel has no port left; every fifth connection stays, the others leave a TIME_WAIT.
    fn exhaust(&mut self) -> Result<()> {
        while self.made < 200 {
            match self.connect() {
                Ok(pair) if self.made.is_multiple_of(5) => self.held.push(pair),
                Ok((client, server)) => {
                    drop(client);
                    drop(server);
                }
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            self.made += 1;
        }
        anyhow::bail!("{} connections, and no end", self.made)
    }
}

/// Sockets towards the destination, by `ss`, or by /proc/net/tcp where it is not installed.
fn counted() -> Result<u64> {
    let to = format!("{ADDRESS}:{PORT}");
    let is_ours = |line: &&str| line.split_whitespace().nth(4) == Some(&to);
    if let Some(text) = truth::ss(&[])? {
        return Ok(text.lines().filter(is_ours).count() as u64);
    }
    Ok(truth::sockets()?.iter().filter(|socket| socket.remote.to_string() == to).count() as u64)
}

fn ports(sandbox: &Sandbox) -> Result<()> {
    let mut narrow = Narrow::new(sandbox)?;
    narrow.exhaust()?;
    ensure!(narrow.made == USABLE, "the kernel gave {} ports", narrow.made);
    let (status, lines) = doctor(&[])?;
    let full = room(&lines)?;
    let figures = &full["ports"];
    ensure!(counted()? == USABLE, "{} sockets", counted()?);
    ensure!(figures["in_use"] == USABLE && figures["usable"] == USABLE && figures["free"] == 0, "{full}");
    let held = narrow.held.len() as u64;
    ensure!(figures["time_wait"] == USABLE - held && figures["reusable"] == 0, "{full}");
    ensure!(full["verdict"] == "fail" && status == Some(1), "{status:?} {full}");
    ensure!(full["netns"] == sandbox.netns(), "{full}");

    // One is given back, without TIME_WAIT: connect() finds it, and only it.
    let (client, server) = narrow.held.pop().context("held")?;
    reset(client)?;
    drop(server);
    let (status, lines) = doctor(&[])?;
    let one = room(&lines)?;
    ensure!(one["ports"]["free"] == 1 && one["verdict"] == "warn", "{one}");
    ensure!(status == Some(0), "{status:?}");
    narrow.held.push(narrow.connect()?);
    ensure!(narrow.connect().is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable), "one more");

    // With tcp_tw_reuse the same TIME_WAITs are in nobody's way once they have rested for a second.
    sandbox.set_sysctl("net.ipv4.tcp_tw_reuse", "1")?;
    for _ in 0..200 {
        let (_, lines) = doctor(&[])?;
        let reused = room(&lines)?;
        if reused["ports"]["reusable"] == USABLE - held {
            ensure!(reused["verdict"] == "warn" && reused["ports"]["free"] == 0, "{reused}");
            narrow.held.push(narrow.connect()?);
            return Ok(());
        }
        sleep_ms(100);
    }
    anyhow::bail!("no TIME_WAIT is called fit for reuse")
}

/// Only a trace sees them: no counter moves, which is checked here as well.
fn failures(sandbox: &Sandbox) -> Result<()> {
    let mut narrow = Narrow::new(sandbox)?;
    narrow.exhaust()?;
    let addr = narrow.addr();
    let before = truth::Counters::read()?;
    let mut command = Command::new(binary::path());
    command.args(["doctor", "--json", "--duration", "2s"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = spawn::start(&mut command)?;
    let mut tried = 0_u64;
    while child.try_wait()?.is_none() {
        // Without std's descriptor work in between, so that there are many.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        let failed = socket.connect(&addr.into()).err().context("a port was free")?;
        ensure!(failed.kind() == ErrorKind::AddrNotAvailable, "{failed}");
        tried += 1;
        sleep_ms(5);
    }
    let after = truth::Counters::read()?;
    for name in ["TcpAttemptFails", "TcpActiveOpens"] {
        ensure!(before.get(name)? == after.get(name)?, "{name} counts them");
    }
    let output = child.wait_with_output()?;
    let lines: Vec<Value> = output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(serde_json::from_slice)
        .collect::<Result<_, _>>()?;
    let seen = named(&lines, "connect_failures")?;
    let count: u64 = seen["value"].as_str().context("a count")?.replace(',', "").parse()?;
    ensure!((1..=tried).contains(&count), "{count} of {tried}");
    ensure!(seen["verdict"] == "warn", "{seen}");
    let detail = seen["detail"].as_str().context("detail")?;
    ensure!(detail.contains(&format!("[{}] to {addr}", std::process::id())), "{detail}");
    let summary = lines.last().context("a last line")?;
    ensure!(summary["type"] == "summary" && summary["connect_failures"] == count, "{summary}");
    Ok(())
}

fn machine(sandbox: &Sandbox) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut waits = 0;
    for _ in 0..7 {
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        drop(client);
        drop(server);
        waits += 1;
    }
    sandbox.set_sysctl("net.ipv4.tcp_fin_timeout", "61")?;
    let (status, lines) = doctor(&[])?;
    ensure!(lines.iter().all(|line| line["type"] == "check"), "only findings without a trace");
    let failed = lines.iter().filter(|line| line["verdict"] == "fail").count();
    ensure!((status == Some(1)) == (failed > 0), "{status:?} with {failed} failures");
    // The trials run as root on a kernel that can be traced: what is needed works.
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    ensure!(named(&lines, "kernel")?["value"] == release.trim(), "kernel");
    for name in ["can_trace", "can_sandbox", "btf", "symbols", "hook_inet_sock_set_state", "hook_timer_start"]
    {
        let check = named(&lines, name)?;
        ensure!(check["verdict"] == "ok", "{check}");
    }
    for fact in FACTS {
        let path = format!("/proc/sys/{}", fact.name.replace('.', "/"));
        let check = named(&lines, fact.short_name())?;
        match std::fs::read_to_string(&path) {
            Ok(value) => {
                let value: Vec<_> = value.split_whitespace().collect();
                ensure!(check["value"] == value.join(" "), "{path}: {check}");
            }
            // Host-wide ones do not show in this namespace; doctor asks where they do.
            Err(_) => ensure!(check["value"].is_null() || fact.is_host_wide(), "{path}: {check}"),
        }
        ensure!(check["detail"].as_str().is_some_and(|detail| detail.contains(fact.truth)), "{check}");
    }
    let quirk = named(&lines, "tcp_fin_timeout")?;
    ensure!(quirk["verdict"] == "warn" && quirk["default"] == "60", "{quirk}");
    let recycle = named(&lines, "tcp_tw_recycle")?;
    ensure!(recycle["value"].is_null() && recycle["verdict"] == "ok", "{recycle}");
    // Of all that the kernel makes itself, the default is what is there, even where the host's size decides.
    let buckets = named(&lines, "tcp_max_tw_buckets")?;
    ensure!(buckets["verdict"] == "ok", "{buckets}");
    let limit = sandbox.sysctl("net.ipv4.tcp_max_tw_buckets")?;
    let time_waits = named(&lines, "time_waits")?["value"].as_str().context("value")?.replace(',', "");
    ensure!(time_waits == format!("{waits} of {limit}") && truth::minis()? == waits, "{time_waits}");
    let pid = std::process::id();
    let fds = lines.iter().find(|line| line["pid"] == pid).context("our descriptors")?;
    ensure!(fds["group"] == "limits", "{fds}");
    Ok(())
}

/// In a mount namespace with a /run of its own: a journal on the host would stop others' experiments.
const KILLED: &str = r#"
mount -t tmpfs tmpfs /run
value() { cat /proc/sys/net/ipv4/tcp_fin_timeout; }
"$0" experiment --set net.ipv4.tcp_fin_timeout=10 --baseline 20 -d 60s >/dev/null 2>&1 &
experiment=$!
tries=0
while [ "$(value)" = 60 ] && [ "$tries" -lt 300 ]; do sleep 0.1; tries=$((tries + 1)); done
kill -KILL "$experiment"
wait "$experiment" || true
echo "left $(value)"
"$0" doctor --json | grep '"name":"experiment_left"'
"$0" experiment --restore >/dev/null
echo "restored $(value)"
"$0" doctor --json | grep -c '"name":"experiment_left"' || true
"#;

fn left(sandbox: &Sandbox) -> Result<()> {
    let Some(child) = spawn::with_own_mounts::<&str>(KILLED, &[])? else { return Ok(()) };
    let output = child.wait_with_output()?;
    let told = String::from_utf8(output.stdout)?;
    let lines: Vec<_> = told.lines().collect();
    let [left, finding, restored, afterwards] = lines[..] else {
        anyhow::bail!("{told}{}", String::from_utf8_lossy(&output.stderr))
    };
    ensure!(left == "left 20" && restored == "restored 60" && afterwards == "0", "{told}");
    let finding: Value = serde_json::from_str(finding)?;
    ensure!(finding["value"] == "net.ipv4.tcp_fin_timeout = 20" && finding["verdict"] == "warn", "{finding}");
    ensure!(finding["netns"] == sandbox.netns() && finding["group"] == "left", "{finding}");
    let detail = finding["detail"].as_str().context("detail")?;
    ensure!(detail.contains("which was 60") && detail.contains("tcptrace experiment --restore"), "{detail}");
    Ok(())
}
