//! Ordinary closes, in every flavour and from either side.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use tcptrace::sandbox::Sandbox;
use tests::clock::{Moment, between, sleep_ms, timed, until};
use tests::expect::within;
use tests::sockets::{Flavour, Meeting, hear, read_eof, reset, turn_deaf};
use tests::traced::{Run, Traced};
use tests::trial::live;
use tests::truth;

pub fn trials() -> Vec<Trial> {
    vec![
        live("normal_close_ipv4", |sandbox| normal_close(sandbox, Flavour::V4)),
        live("normal_close_ipv6", |sandbox| normal_close(sandbox, Flavour::V6)),
        live("normal_close_v4_mapped", |sandbox| normal_close(sandbox, Flavour::Mapped)),
        live("simultaneous_close", simultaneous_close),
        live("connection_to_itself", connection_to_itself),
        live("reset_of_an_established_connection", reset_established),
    ]
}

/// One end of a connection: its address, then the other's.
type End = (SocketAddr, SocketAddr);

fn normal_close(sandbox: &Sandbox, flavour: Flavour) -> Result<()> {
    let tracer = Traced::watch(sandbox, &[])?;
    let meeting = Meeting::new(flavour)?;
    let mut closes = Vec::new();
    for client_first in [true, false] {
        let (opened, pair) = timed(|| meeting.pair());
        let pair = pair?;
        let (client, server) = (pair.client_addr, pair.server_addr);
        let ends: (End, End) = if client_first {
            ((client, server), (server, client))
        } else {
            ((server, client), (client, server))
        };
        let (active, mut passive) =
            if client_first { (pair.client, pair.server) } else { (pair.server, pair.client) };
        sleep_ms(50);
        // Told EOF, the passive end is in CLOSE_WAIT.
        let (first, outcome) = timed(|| {
            drop(active);
            read_eof(&mut passive)
        });
        outcome?;
        sleep_ms(120);
        let (second, ()) = until(
            || {
                drop(passive);
                Ok(())
            },
            "TIME_WAIT in the kernel",
            || truth::is_mini(ends.0.0, ends.0.1, truth::state::TIME_WAIT),
        )?;
        closes.push((ends, opened, first, second));
    }
    let run = tracer.finish()?;
    for ((active, passive), opened, first, second) in closes {
        expect_normal_close(&run, active, passive, opened, first, second)?;
        for line in run.of(active.0, active.1) {
            ensure!(line.family == flavour.family(), "{line:?}");
            ensure!(line.netns == sandbox.netns(), "{line:?}");
        }
    }
    Ok(())
}

fn expect_normal_close(
    run: &Run,
    active: End,
    passive: End,
    opened: Moment,
    first: Moment,
    second: Moment,
) -> Result<()> {
    run.expect_path(
        active.0,
        active.1,
        &["ESTABLISHED→FIN_WAIT1", "FIN_WAIT1→FIN_WAIT2", "FIN_WAIT2→TIME_WAIT"],
    )?;
    run.expect_path(
        passive.0,
        passive.1,
        &["ESTABLISHED→CLOSE_WAIT", "CLOSE_WAIT→LAST_ACK", "LAST_ACK→CLOSE"],
    )?;
    let active = |from, to| run.one(active.0, active.1, from, to);
    let passive = |from, to| run.one(passive.0, passive.1, from, to);

    let established = active("ESTABLISHED", "FIN_WAIT1")?;
    within("ESTABLISHED", established.dwell()?, &between(opened, first))?;
    let close_wait = passive("CLOSE_WAIT", "LAST_ACK")?;
    within("CLOSE_WAIT", close_wait.dwell()?, &between(first, second))?;
    // The peer acknowledges the FIN at once or 40 ms later: only the sum is known from outside.
    let fin_wait1 = active("FIN_WAIT1", "FIN_WAIT2")?.dwell()?;
    let fin_wait2 = active("FIN_WAIT2", "TIME_WAIT")?;
    within("FIN_WAIT1 and FIN_WAIT2", fin_wait1 + fin_wait2.dwell()?, &between(first, second))?;
    ensure!(fin_wait2.phase.as_deref() == Some("orphaned"), "{fin_wait2:?}");

    for line in [established, close_wait, fin_wait2] {
        let owner = line.owner.as_ref();
        ensure!(owner.is_some_and(|owner| owner.pid == std::process::id()), "{line:?}");
        ensure!(!line.dwell_is_lower_bound, "{line:?}");
    }
    for line in [close_wait, fin_wait2] {
        ensure!(line.owner.as_ref().is_some_and(|owner| owner.evidence == "close"), "{line:?}");
    }
    within("mono_ns of close()", fin_wait2.mono_ns, &(second.after_ns..=second.before_ns))
}

/// Both ends shut down while neither hears the other; their FINs then cross by retransmission. Whether both
/// timers fire before either FIN is taken in is a matter of the same jiffy, so it is tried until the kernel shows
/// TIME_WAIT at both ends, which only a simultaneous close leaves.
fn simultaneous_close(sandbox: &Sandbox) -> Result<()> {
    let tracer = Traced::watch(sandbox, &[])?;
    let meeting = Meeting::new(Flavour::V4)?;
    for _ in 0..40 {
        let pair = meeting.pair()?;
        turn_deaf(&pair.client)?;
        turn_deaf(&pair.server)?;
        let (began, both) = timed(|| {
            pair.client.shutdown(std::net::Shutdown::Write)?;
            pair.server.shutdown(std::net::Shutdown::Write)
        });
        both?;
        hear(&pair.client)?;
        hear(&pair.server)?;
        let (client, server) = (pair.client_addr, pair.server_addr);
        let is_time_wait = |local, remote| {
            truth::socket(local, remote)
                .is_ok_and(|socket| socket.is_some_and(|socket| socket.state == truth::state::TIME_WAIT))
        };
        tests::clock::wait_until("the end of a simultaneous close", Duration::from_secs(60), || {
            is_time_wait(client, server) || is_time_wait(server, client)
        })?;
        sleep_ms(20);
        if !(is_time_wait(client, server) && is_time_wait(server, client)) {
            continue;
        }
        let ended = Moment { after_ns: began.before_ns, before_ns: tests::clock::now_ns() };
        let run = tracer.finish()?;
        for (local, remote) in [(client, server), (server, client)] {
            run.expect_path(
                local,
                remote,
                &["ESTABLISHED→FIN_WAIT1", "FIN_WAIT1→CLOSING", "CLOSING→TIME_WAIT"],
            )?;
            let fin_wait1 = run.one(local, remote, "FIN_WAIT1", "CLOSING")?;
            within("FIN_WAIT1", fin_wait1.dwell()?, &between(began, ended))?;
            let closing = run.one(local, remote, "CLOSING", "TIME_WAIT")?;
            ensure!(closing.owner.as_ref().is_some_and(|owner| owner.evidence == "close"), "{closing:?}");
        }
        return Ok(());
    }
    anyhow::bail!("the FINs did not cross in 40 attempts")
}

/// A socket that connects to its own port opens and closes simultaneously with itself.
fn connection_to_itself(sandbox: &Sandbox) -> Result<()> {
    use socket2::{Domain, SockAddr, Socket, Type};
    let tracer = Traced::watch(sandbox, &[])?;
    let addr: SocketAddr = "127.0.0.1:4040".parse()?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SockAddr::from(addr))?;
    socket.connect(&SockAddr::from(addr))?;
    drop(socket);
    let run = tracer.finish()?;
    run.expect_path(addr, addr, &["ESTABLISHED→FIN_WAIT1", "FIN_WAIT1→CLOSING", "CLOSING→TIME_WAIT"])
}

fn reset_established(sandbox: &Sandbox) -> Result<()> {
    let tracer = Traced::watch(sandbox, &[])?;
    let (opened, pair) = timed(|| Meeting::new(Flavour::V4)?.pair());
    let pair = pair?;
    sleep_ms(80);
    let (client, server) = (pair.client_addr, pair.server_addr);
    let gone = || Ok(truth::socket(server, client)?.is_none());
    let (closed, ()) = until(|| reset(pair.client), "the end of the connection", gone)?;
    let run = tracer.finish()?;
    for (local, remote) in [(client, server), (server, client)] {
        run.expect_path(local, remote, &["ESTABLISHED→CLOSE"])?;
        let line = run.one(local, remote, "ESTABLISHED", "CLOSE")?;
        within("ESTABLISHED", line.dwell()?, &between(opened, closed))?;
        ensure!(line.end.as_deref() == Some("reset"), "{line:?}");
    }
    ensure!(truth::minis()? == 0);
    Ok(())
}
