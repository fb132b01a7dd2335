//! `states` and the inventory, against `ss` and against what the test itself holds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tcptrace::inventory::diag::{DiagSocket, Query, Sink, StateSet, list_here};
use tcptrace::inventory::holders::{self, Holder};
use tcptrace::net::State;
use tcptrace::sandbox::Sandbox;
use tests::binary;
use tests::clock::sleep_ms;
use tests::helper;
use tests::leaker::{Language, Leaker};
use tests::sockets::{Flavour, Meeting, Pair, read_eof};
use tests::spawn::{NOBODY, nobody_with};
use tests::trial::live;
use tests::truth;

pub fn trials() -> Vec<Trial> {
    vec![
        live("states_are_what_ss_counts", counts),
        live("states_of_an_ordinary_user_are_their_own_and_say_so", as_ordinary_user),
        live("many_sockets_are_each_counted_once", many),
        live("what_comes_in_masses_is_counted_by_the_kernel", masses),
        live("a_dump_says_what_ss_says_of_every_socket", dump_equals_ss),
        live("every_holder_is_found_after_fork", forked),
        live("a_socket_in_flight_is_held_by_nobody", in_flight),
    ]
}

/// As /proc/net/tcp numbers them.
const FIN_WAIT1: u8 = 4;
const LAST_ACK: u8 = 9;

/// Some of everything that can be held still: nothing here changes by itself for a minute.
struct Still {
    _meeting: Meeting,
    _pairs: Vec<Pair>,
    _streams: Vec<TcpStream>,
    _waiting: Vec<TcpStream>,
}

fn still(sandbox: &Sandbox, flavour: Flavour) -> Result<Still> {
    sandbox.set_sysctl("net.ipv4.tcp_fin_timeout", "60")?;
    let meeting = Meeting::new(flavour)?;
    let (mut pairs, mut streams) = (Vec::new(), Vec::new());
    for kind in 0..20 {
        let mut pair = meeting.pair()?;
        match kind % 4 {
            0 => pairs.push(pair),
            1 => {
                drop(pair.client);
                read_eof(&mut pair.server)?;
                streams.push(pair.server);
            }
            2 => {
                pair.client.shutdown(Shutdown::Write)?;
                read_eof(&mut pair.server)?;
                pairs.push(pair);
            }
            _ => {
                drop(pair.client);
                read_eof(&mut pair.server)?;
                drop(pair.server);
            }
        }
    }
    let waiting = TcpStream::connect(meeting.addr()?)?;
    waiting.shutdown(Shutdown::Write)?;
    // The last FIN may wait for a delayed ACK.
    for _ in 0..100 {
        if truth::sockets()?.iter().all(|socket| ![FIN_WAIT1, LAST_ACK].contains(&socket.state)) {
            break;
        }
        sleep_ms(20);
    }
    Ok(Still { _meeting: meeting, _pairs: pairs, _streams: streams, _waiting: vec![waiting] })
}

/// State names as `ss` prints them, and how often.
fn counted_by_ss() -> Result<Option<BTreeMap<String, u64>>> {
    let Some(text) = truth::ss(&[])? else { return Ok(None) };
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let name = line.split_whitespace().next().context("state")?;
        let name = if name == "ESTAB" { "ESTABLISHED" } else { name };
        let state: State = name.parse()?;
        *counts.entry(state.to_string()).or_default() += 1;
    }
    Ok(Some(counts))
}

fn states(args: &[&str]) -> Result<Value> {
    let output = Command::new(binary::path()).arg("states").args(args).arg("--json").output()?;
    ensure!(output.status.success(), "states: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn counts(sandbox: &Sandbox) -> Result<()> {
    let _kept = [Flavour::V4, Flavour::V6, Flavour::Mapped].map(|flavour| still(sandbox, flavour));
    let netns = sandbox.netns().to_string();
    let line = states(&["--netns", &netns])?;
    if let Some(ss) = counted_by_ss()? {
        ensure!(line["counts"] == serde_json::to_value(&ss)?, "{line} is not {ss:?}");
    }
    ensure!(line["counts"]["TIME_WAIT"] == 15 && line["netns"] == sandbox.netns(), "{line}");

    let by = states(&["--netns", &netns, "--by", "process"])?;
    let rows = by["by"].as_array().context("rows")?;
    let ours = rows.iter().find(|row| row["process"]["pid"] == std::process::id()).context("our row")?;
    ensure!(ours["counts"]["CLOSE_WAIT"] == 30 && ours["counts"]["LISTEN"] == 3, "{ours}");
    let nobody = rows.iter().find(|row| row["process"].is_null()).context("row of nobody")?;
    // Orphans, TIME_WAITs and what is not accepted.
    ensure!(nobody["counts"]["FIN_WAIT2"] == 15 && nobody["counts"]["TIME_WAIT"] == 15, "{nobody}");
    ensure!(nobody["counts"]["CLOSE_WAIT"] == 3, "{nobody}");
    Ok(())
}

/// Without privileges: all sockets are counted, whose they are is known of one's own, and of the others that it is not.
fn as_ordinary_user(_: &Sandbox) -> Result<()> {
    if !Language::Python.is_here() {
        return Ok(());
    }
    let mut own = Leaker::start_as(Language::Python, NOBODY)?;
    own.leak("consumed 3")?;
    let meeting = Meeting::new(Flavour::V4)?;
    let foreign = meeting.pair()?;
    let (_dir, program) = binary::copy_for_everybody()?;
    let mut command = Command::new("setpriv");
    let nothing: [&str; 0] = [];
    command.args(nobody_with(&nothing)?).arg(program).args(["states", "--json", "--by", "process"]);
    let output = command.current_dir("/").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    let line: Value = serde_json::from_slice(&output.stdout)?;
    if let Some(ss) = counted_by_ss()? {
        ensure!(line["counts"] == serde_json::to_value(&ss)?, "{line} is not {ss:?}");
    }
    let rows = line["by"].as_array().context("rows")?;
    let known: Vec<_> = rows.iter().filter(|row| !row["process"].is_null()).collect();
    ensure!(known.len() == 1 && known[0]["process"]["pid"] == own.pid(), "{line}");
    // It has two listeners.
    ensure!(known[0]["counts"]["CLOSE_WAIT"] == 3 && known[0]["counts"]["LISTEN"] == 2, "{line}");
    // Both ends and the listener of this process, which is root's.
    let unknown = rows.iter().find(|row| row["process"].is_null()).context("row of the others")?;
    ensure!(unknown["counts"]["ESTABLISHED"] == 2 && unknown["counts"]["LISTEN"] == 1, "{line}");
    ensure!(said.contains("descriptors of") && said.contains("CAP_SYS_PTRACE"), "{said}");
    drop(foreign);
    Ok(())
}

/// More than one thread lists alone: two take half of them each.
const MANY: u64 = 6_000;

fn many(sandbox: &Sandbox) -> Result<()> {
    // Without reuse each connection leaves a TIME_WAIT, which lasts longer than this trial.
    sandbox.set_sysctl("net.ipv4.tcp_tw_reuse", "0")?;
    sandbox.set_sysctl("net.ipv4.ip_local_port_range", "20000 60999")?;
    // A kernel with little memory would allow fewer.
    sandbox.set_sysctl("net.ipv4.tcp_max_tw_buckets", &(4 * MANY).to_string())?;
    let mut listeners = Vec::new();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address)?;
        for _ in 0..MANY {
            let client = TcpStream::connect(listener.local_addr()?)?;
            drop(client);
            drop(listener.accept()?);
        }
        listeners.push(listener);
    }
    let _kept = still(sandbox, Flavour::V4)?;
    let netns = sandbox.netns().to_string();
    let line = states(&["--netns", &netns])?;
    if let Some(ss) = counted_by_ss()? {
        ensure!(line["counts"] == serde_json::to_value(&ss)?, "{line} is not {ss:?}");
    }
    // Two kinds, and those that are held still. Where the kernel itself has fewer, its counters say why: a RST that
    // answers what was sent twice ends a TIME_WAIT early (RFC 1337).
    ensure!(line["counts"]["TIME_WAIT"] == 2 * MANY + 5, "{line}: {}", what_went_amiss()?);
    let by = states(&["--netns", &netns, "--by", "port"])?;
    ensure!(by["counts"] == line["counts"], "{by} is not {line}");
    let listed = dump(sandbox)?;
    let counted: u64 = line["counts"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum();
    ensure!(listed.len() as u64 == counted, "{} sockets listed, {counted} counted", listed.len());
    let flows: BTreeSet<_> =
        listed.iter().map(|socket| (socket.flow.local_addr(), socket.flow.remote_addr())).collect();
    ensure!(flows.len() == listed.len(), "{} sockets, {} flows", listed.len(), flows.len());
    drop(listeners);
    Ok(())
}

/// What the kernel has counted of this namespace that may have cost a TIME_WAIT.
fn what_went_amiss() -> Result<String> {
    let counters = truth::Counters::read()?;
    let names = [
        "TcpRetransSegs",
        "TcpOutRsts",
        "TcpEstabResets",
        "TcpAttemptFails",
        "TcpExtTW",
        "TcpExtTCPTimeWaitOverflow",
    ];
    let shown: Result<Vec<_>> =
        names.iter().map(|&name| Ok(format!("{name} {}", counters.get(name)?))).collect();
    Ok(format!("{} minis, {}", truth::minis()?, shown?.join(", ")))
}

/// Counts by state, and knows how many were told one by one.
#[derive(Default)]
struct Count {
    by_state: BTreeMap<String, u64>,
    listed: u64,
}

impl Sink for Count {
    type Mark = (BTreeMap<String, u64>, u64);

    fn take(&mut self, socket: DiagSocket) {
        *self.by_state.entry(socket.state.to_string()).or_default() += 1;
        self.listed += 1;
    }

    fn only_counts(&self) -> bool {
        true
    }

    fn take_counted(&mut self, state: State, sockets: u64) {
        *self.by_state.entry(state.to_string()).or_default() += sockets;
    }

    fn mark(&self) -> Self::Mark {
        (self.by_state.clone(), self.listed)
    }

    fn rewind(&mut self, (by_state, listed): Self::Mark) {
        *self = Self { by_state, listed };
    }

    fn fresh(&self) -> Self {
        Self::default()
    }

    fn absorb(&mut self, other: Self) {
        for (state, sockets) in other.by_state {
            *self.by_state.entry(state).or_default() += sockets;
        }
        self.listed += other.listed;
    }
}

fn count_here(sandbox: &Sandbox) -> Result<Count> {
    let (mut count, mut notes) = (Count::default(), Vec::new());
    list_here(sandbox.netns(), Query::to_count(StateSet::ALL), &mut count, &mut notes)?;
    ensure!(notes.is_empty(), "{notes:?}");
    Ok(count)
}

/// Connections of which both ends are counted.
const HELD: usize = 5_100;

fn masses(sandbox: &Sandbox) -> Result<()> {
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: Some(20_000), maximum: Some(20_000) },
    )?;
    let kept = [Flavour::V4, Flavour::V6].map(|flavour| still(sandbox, flavour));
    // Each leaves one connection in its listener's queue, which is in CLOSE_WAIT: that is told of each.
    let (mut held, mut listeners) = (Vec::with_capacity(2 * HELD), Vec::new());
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address)?;
        for _ in 0..HELD / 2 {
            held.push(TcpStream::connect(listener.local_addr()?)?);
            held.push(listener.accept()?.0);
        }
        listeners.push(listener);
    }
    let Some(ss) = counted_by_ss()? else { return Ok(()) };
    let count = count_here(sandbox)?;
    ensure!(count.by_state == ss, "{:?} is not {ss:?}", count.by_state);
    ensure!(ss["ESTABLISHED"] >= 2 * HELD as u64 && ss["TIME_WAIT"] == 10, "{ss:?}");
    ensure!(count.listed < 100, "{} of them were listed", count.listed);
    let netns = sandbox.netns().to_string();
    let line = states(&["--netns", &netns])?;
    ensure!(line["counts"] == serde_json::to_value(&ss)?, "{line} is not {ss:?}");
    let line = states(&["--netns", &netns, "--state", "established"])?;
    ensure!(line["counts"] == json!({ "ESTABLISHED": ss["ESTABLISHED"] }), "{line} is not {ss:?}");

    // A connection that waits to be accepted is told of each socket alone.
    let waiting = TcpStream::connect(listeners[0].local_addr()?)?;
    let Some(ss) = counted_by_ss()? else { return Ok(()) };
    let count = count_here(sandbox)?;
    ensure!(count.by_state == ss, "{:?} is not {ss:?}", count.by_state);
    ensure!(count.listed > 2 * HELD as u64, "{} were listed", count.listed);
    let text = Command::new(binary::path()).args(["states", "--netns", &netns]).output()?;
    let text = String::from_utf8(text.stdout)?;
    let row = text.lines().find(|line| line.starts_with("ESTABLISHED")).context("a row of ESTABLISHED")?;
    ensure!(row.ends_with("1 not accepted yet"), "{text}");
    drop((waiting, kept));
    Ok(())
}

/// Our dump of the namespace that the calling thread is in.
fn dump(sandbox: &Sandbox) -> Result<Vec<DiagSocket>> {
    let (mut sockets, mut notes) = (Vec::new(), Vec::new());
    list_here(sandbox.netns(), Query::from(StateSet::ALL), &mut sockets, &mut notes)?;
    ensure!(notes.is_empty(), "{notes:?}");
    Ok(sockets)
}

/// Column by column: state, queues, addresses, inode, timer.
fn dump_equals_ss(sandbox: &Sandbox) -> Result<()> {
    let _kept = [still(sandbox, Flavour::V4)?, still(sandbox, Flavour::V6)?];
    let ours = dump(sandbox)?;
    let Some(ss) = truth::ss(&["-n"])? else { return Ok(()) };
    ensure!(ss.lines().count() == ours.len(), "{} sockets, ss has {}", ours.len(), ss.lines().count());
    for line in ss.lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        let name = if fields[0] == "ESTAB" { "ESTABLISHED" } else { fields[0] };
        let remote =
            if fields[4].ends_with(":*") { fields[4].replace('*', "0") } else { fields[4].to_owned() };
        let socket = ours
            .iter()
            .find(|socket| {
                socket.flow.local_addr().to_string() == fields[3]
                    && socket.flow.remote_addr().to_string() == remote
            })
            .with_context(|| format!("not in our dump: {line}"))?;
        ensure!(socket.state == name.parse()?, "{socket:?} is not {line}");
        ensure!(socket.recv_queue.to_string() == fields[1], "{socket:?} is not {line}");
        ensure!(socket.send_queue.to_string() == fields[2], "{socket:?} is not {line}");
        ensure!(socket.is_mini == line.contains("timer:(timewait"), "{socket:?} is not {line}");
        if let Some(inode) = line.split_once("ino:").and_then(|(_, rest)| rest.split(' ').next()) {
            ensure!(
                socket.inode == inode.parse().ok().filter(|&inode| inode != 0),
                "{socket:?} is not {line}"
            );
        }
        if let Some(cookie) = line.split_once("sk:").and_then(|(_, rest)| rest.split(' ').next()) {
            let cookie = u64::from_str_radix(cookie, 16)?;
            ensure!(socket.cookie == Some(cookie), "{socket:?} is not {line}");
        }
    }
    Ok(())
}

fn listening(sandbox: &Sandbox, listener: &TcpListener) -> Result<u64> {
    let addr = listener.local_addr()?;
    let sockets = dump(sandbox)?;
    let socket = sockets.iter().find(|socket| socket.flow.local_addr() == addr).context("listed")?;
    socket.inode.context("held")
}

/// Looks until `right`: other trials of this process start programs, and between fork() and exec() a child holds
/// everything that we do.
fn holders_until(inode: u64, right: impl Fn(&[Holder]) -> bool) -> Result<()> {
    for _ in 0..50 {
        let found = holders::find(&[inode].into_iter().collect());
        if right(found.of(inode)) {
            return Ok(());
        }
        sleep_ms(20);
    }
    bail!("{:?}", holders::find(&[inode].into_iter().collect()).of(inode))
}

fn forked(sandbox: &Sandbox) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let inode = listening(sandbox, &listener)?;
    // The child gets it as its standard input.
    let stdin = std::os::fd::OwnedFd::from(listener.try_clone()?);
    let mut child = helper::command(helper::Role::Hold)?.stdin(stdin).spawn()?;
    let expected = |holders: &[Holder]| {
        let pids: BTreeSet<u32> = holders.iter().map(|holder| holder.pid).collect();
        pids == BTreeSet::from([std::process::id(), child.id()])
            && holders.contains(&Holder { pid: child.id(), fd: 0 })
    };
    let outcome = holders_until(inode, expected);
    child.kill()?;
    child.wait()?;
    outcome
}

fn in_flight(sandbox: &Sandbox) -> Result<()> {
    use std::io::IoSlice;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixDatagram;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let inode = listening(sandbox, &listener)?;
    let (sender, receiver) = UnixDatagram::pair()?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let passed = [listener.as_fd()];
    ensure!(control.push(SendAncillaryMessage::ScmRights(&passed)), "no room");
    sendmsg(&sender, &[IoSlice::new(b"x")], &mut control, SendFlags::empty())?;
    drop(listener);
    let outcome = holders_until(inode, <[Holder]>::is_empty);
    drop(receiver);
    outcome
}
