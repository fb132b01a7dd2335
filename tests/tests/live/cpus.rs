//! A processor that is taken away and given back while the tracer runs. Only on a machine that is the tests' own, which
//! `cargo xtask vm-test` boots: nobody else may notice.

use std::fs;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use rustix::process::Signal;
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use tcptrace::sandbox::Sandbox;
use tests::clock::{Moment, between, sleep_ms, timed, wait_until};
use tests::expect::{timer_ns, within};
use tests::sockets::{Flavour, Meeting, read_eof};
use tests::traced::{Run, Traced};
use tests::trial::live;
use tests::truth;

/// It stays.
const FIRST: usize = 0;
/// It goes and comes back.
const SECOND: usize = 1;
/// Of each kind, in every phase of a trial.
const CONNECTIONS: usize = 10;
const FIN_TIMEOUT_S: u32 = 20;
const TCP_TIMEWAIT_LEN_S: u32 = 60;

pub fn trials() -> Vec<Trial> {
    vec![
        live("a_cpu_that_goes_and_comes_back_costs_no_dwell", comes_and_goes),
        live("what_a_cpu_lost_is_counted_after_it_has_gone", lost_by_one_that_goes),
    ]
}

/// The second processor, which the machine has and does not use before this is made and after it is dropped.
struct Second;

impl Second {
    const FILE: &str = "/sys/devices/system/cpu/cpu1/online";

    fn woken() -> Result<Self> {
        let second = Self;
        second.set_online(true)?;
        Ok(second)
    }

    fn is_online() -> Result<bool> {
        Ok(fs::read_to_string(Self::FILE).context(Self::FILE)?.trim() == "1")
    }

    fn set_online(&self, online: bool) -> Result<()> {
        fs::write(Self::FILE, if online { "1" } else { "0" }).context(Self::FILE)?;
        ensure!(Self::is_online()? == online, "the kernel did not do it");
        Ok(())
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = fs::write(Self::FILE, "0");
    }
}

/// This thread goes on on that processor. What it sends over loopback is received there, and a mini's timer is
/// pinned to where it was started (`inet_twsk_alloc()`).
fn run_on(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set)?;
    ensure!(sched_getcpu() == processor, "still on another processor");
    Ok(())
}

type Ends = (SocketAddr, SocketAddr);

/// One of which the peer still holds its end.
struct Held {
    /// Local and remote end as the client sees them.
    ends: Ends,
    /// The client's, which it has shut down and keeps; `None` where it has closed it.
    client: Option<TcpStream>,
    server: TcpStream,
    /// When the server's end was told EOF.
    closed: Moment,
}

/// What one phase of the trial leaves.
struct Phase {
    time_waits: Vec<Ends>,
    orphans: Vec<Held>,
    half_closed: Vec<Held>,
}

impl Phase {
    fn make(meeting: &Meeting) -> Result<Self> {
        let mut phase = Self { time_waits: Vec::new(), orphans: Vec::new(), half_closed: Vec::new() };
        for _ in 0..CONNECTIONS {
            let mut pair = meeting.pair()?;
            drop(pair.client);
            read_eof(&mut pair.server)?;
            phase.time_waits.push((pair.client_addr, pair.server_addr));

            phase.orphans.push(Held::new(meeting, false)?);
            phase.half_closed.push(Held::new(meeting, true)?);
        }
        Ok(phase)
    }
}

impl Held {
    fn new(meeting: &Meeting, is_half: bool) -> Result<Self> {
        let mut pair = meeting.pair()?;
        let ends = (pair.client_addr, pair.server_addr);
        let (closed, outcome) = timed(|| {
            pair.client.shutdown(Shutdown::Write)?;
            let client = is_half.then_some(pair.client);
            read_eof(&mut pair.server).map(|()| client)
        });
        Ok(Self { ends, client: outcome?, server: pair.server, closed })
    }

    /// Closes the server's end, then the client's: the ends, and how long CLOSE_WAIT may have lasted.
    fn close(self) -> Result<(Ends, std::ops::RangeInclusive<u64>)> {
        let (ended, ()) = timed(|| drop(self.server));
        if let Some(mut client) = self.client {
            read_eof(&mut client)?;
        }
        Ok((self.ends, between(self.closed, ended)))
    }
}

/// Timers that move to the processor that is left, sockets that are closed on another one than they were made on,
/// before, while and after it is gone: every dwell is told, and as long as it was.
fn comes_and_goes(sandbox: &Sandbox) -> Result<()> {
    let second = Second::woken()?;
    sandbox.set_sysctl("net.ipv4.tcp_fin_timeout", &FIN_TIMEOUT_S.to_string())?;
    sandbox.set_sysctl("net.ipv4.tcp_tw_reuse", "0")?;
    let meeting = Meeting::new(Flavour::V4)?;
    let tracer = Traced::watch(sandbox, &[])?;

    run_on(SECOND)?;
    let before = Phase::make(&meeting)?;
    run_on(FIRST)?;
    second.set_online(false)?;
    sleep_ms(2000);
    // The client's end of these goes to TIME_WAIT now.
    let mut closed = close(before.half_closed)?;
    let meanwhile = Phase::make(&meeting)?;
    sleep_ms(2000);
    second.set_online(true)?;
    run_on(SECOND)?;
    closed.extend(close(meanwhile.half_closed)?);
    let after = Phase::make(&meeting)?;
    closed.extend(close(after.half_closed)?);
    let mut time_waits: Vec<_> = closed.iter().map(|(ends, _)| *ends).collect();
    time_waits.extend([before.time_waits, meanwhile.time_waits, after.time_waits].concat());

    wait_until("the end of every mini", Duration::from_secs(80), || truth::minis().is_ok_and(|it| it == 0))?;
    let orphans: Vec<_> = before.orphans.into_iter().chain(meanwhile.orphans).chain(after.orphans).collect();
    let orphaned: Vec<_> = orphans.iter().map(|held| held.ends).collect();
    closed.extend(close(orphans)?);
    sleep_ms(200);

    let run = tracer.finish()?;
    for &(local, remote) in &time_waits {
        let end = run.one(local, remote, "TIME_WAIT", "CLOSE")?;
        within("TIME_WAIT", end.dwell()?, &timer_ns(TCP_TIMEWAIT_LEN_S)?)?;
        ensure!(end.end.as_deref() == Some("expired") && !end.dwell_is_lower_bound, "{end:?}");
    }
    let skipped = run.summary.loss.get("skipped_runs").copied().unwrap_or(0);
    let mut bounded = 0;
    for &(local, remote) in &orphaned {
        let end = run.one(local, remote, "FIN_WAIT2", "CLOSE")?;
        within("orphaned FIN_WAIT2", end.dwell()?, &timer_ns(FIN_TIMEOUT_S)?)?;
        let told = || format!("{:?}, lost: {:?}", run.of(local, remote), run.summary.loss);
        ensure!(end.end.as_deref() == Some("timed_out"), told());
        bounded += u64::from(end.dwell_is_lower_bound);
        // The kernel skips a program that would interrupt itself, which a processor that comes back makes likely: then the
        // beginning is not known, and that is said.
        ensure!(bounded <= skipped, told());
    }
    for ((client, server), lasted) in &closed {
        let end = run.one(*server, *client, "CLOSE_WAIT", "LAST_ACK")?;
        within("CLOSE_WAIT", end.dwell()?, lasted)?;
    }
    let told = |from: &str| run.transitions.iter().filter(|line| line.from == from).count();
    // The servers of those that went to TIME_WAIT at once were in CLOSE_WAIT as well, for a moment.
    let made = (time_waits.len(), closed.len() + 3 * CONNECTIONS);
    let ended = (told("TIME_WAIT"), told("CLOSE_WAIT"));
    ensure!(ended == made, "{ended:?} TIME_WAITs and CLOSE_WAITs were told, {made:?} made");
    ensure!(!run.summary.loss.contains_key("vanished"), "{:?}", run.summary);
    Ok(())
}

fn close(held: Vec<Held>) -> Result<Vec<(Ends, std::ops::RangeInclusive<u64>)>> {
    held.into_iter().map(Held::close).collect()
}

/// Each processor counts what found no room for itself, and what one counted is not forgotten with it.
fn lost_by_one_that_goes(sandbox: &Sandbox) -> Result<()> {
    const MADE: usize = 2000;
    let second = Second::woken()?;
    let meeting = Meeting::new(Flavour::V4)?;
    let tracer = Traced::watch(sandbox, &["--ring-size", "64K"])?;
    tracer.signal(Signal::STOP)?;
    run_on(SECOND)?;
    for _ in 0..MADE {
        let mut pair = meeting.pair()?;
        drop(pair.client);
        read_eof(&mut pair.server)?;
    }
    run_on(FIRST)?;
    second.set_online(false)?;
    tracer.signal(Signal::CONT)?;
    sleep_ms(3000);
    let run: Run = tracer.finish_lossy()?;
    let count = |cause: &str| run.summary.loss.get(cause).copied().unwrap_or(0);
    ensure!(count("ring_full") > 0, "nothing was lost: {:?}", run.summary);
    let (from, to) = ("ESTABLISHED", "FIN_WAIT1");
    let told = run.transitions.iter().filter(|line| line.from == from && line.to == to).count() as u64;
    let (lost, made) = (run.lost_of(from, to), MADE as u64);
    ensure!(lost > 0 && told + lost <= made, "{told} told, {lost} lost of {made}");
    ensure!(told + lost + count("skipped_runs") >= made, "{told} told, {lost} lost of {made}");
    Ok(())
}
