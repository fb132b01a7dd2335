//! FIN_WAIT2 in its three forms: half-closed, orphaned, and orphaned with a timeout above 60 s.

use std::net::Shutdown;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use tcptrace::sandbox::Sandbox;
use tests::clock::{between, now_ns, sleep_ms, timed, until, wait_until};
use tests::expect::{timer_ns, within};
use tests::sockets::{Flavour, Meeting, read_eof, send, set_linger2};
use tests::traced::Traced;
use tests::trial::live;
use tests::truth;

const FIN_TIMEOUT: &str = "net.ipv4.tcp_fin_timeout";
/// For what takes some seconds at most, where the machine has time for it.
const SOON: Duration = Duration::from_secs(60);

pub fn trials() -> Vec<Trial> {
    vec![
        live("orphaned_fin_wait2_lasts_tcp_fin_timeout", orphaned),
        live("orphaned_fin_wait2_with_linger2_lasts_that", orphaned_by_linger2),
        live("tcp_fin_timeout_above_60_lasts_twice_the_excess", above_sixty),
        live("negative_linger2_skips_fin_wait2", negative_linger2),
        live("data_after_close_ends_an_orphan_by_reset", data_after_close),
        live("half_closed_lasts_as_long_as_the_peer_likes", half_closed),
        live("close_of_a_half_closed_socket_makes_an_orphan", half_closed_then_closed),
    ]
}

/// Ten at once, as `ss` shows them and as they end.
fn orphaned(sandbox: &Sandbox) -> Result<()> {
    // Long enough for `ss` to start on a busy machine.
    sandbox.set_sysctl(FIN_TIMEOUT, "20")?;
    let tracer = Traced::watch(sandbox, &[])?;
    let meeting = Meeting::new(Flavour::V4)?;
    let mut pairs = Vec::new();
    for _ in 0..10 {
        let pair = meeting.pair()?;
        let (closed, ()) = timed(|| drop(pair.client));
        pairs.push((pair.client_addr, pair.server_addr, closed, pair.server));
    }
    // The peer may take 40 ms to acknowledge a FIN.
    sleep_ms(500);
    // Where the machine stands still for that long there is nothing to be seen any more.
    let first = pairs[0].2.after_ns;
    let is_over = || now_ns() - first > 20_000_000_000;
    for (client, server, ..) in &pairs {
        let mini = truth::socket(*client, *server)?;
        let is_orphan =
            mini.as_ref().is_some_and(|mini| mini.is_mini() && mini.state == truth::state::FIN_WAIT2);
        ensure!(is_orphan || is_over(), "the kernel shows no orphan: {mini:?}");
    }
    if let Some(text) = truth::ss(&["state", "fin-wait-2"])? {
        let shows_all = text.lines().count() == 10 && text.contains("timer:(timewait,");
        ensure!(shows_all || is_over(), "ss shows\n{text}");
    }
    for (client, ..) in &pairs {
        tracer.wait_for_close(*client, SOON)?;
    }
    ensure!(truth::minis()? == 0, "the kernel still has orphans");
    let run = tracer.finish()?;
    for (client, server, closed, _) in &pairs {
        let end = run.one(*client, *server, "FIN_WAIT2", "CLOSE")?;
        within("orphaned FIN_WAIT2", end.dwell()?, &timer_ns(20)?)?;
        ensure!(end.phase.as_deref() == Some("orphaned"), "{end:?}");
        ensure!(end.end.as_deref() == Some("timed_out"), "{end:?}");
        ensure!(!end.dwell_is_lower_bound, "{end:?}");
        let owner = end.owner.as_ref();
        ensure!(
            owner.is_some_and(|owner| owner.pid == std::process::id() && owner.evidence == "close"),
            "{end:?}"
        );
        let begin = run.one(*client, *server, "FIN_WAIT1", "FIN_WAIT2")?;
        ensure!(begin.mono_ns >= closed.after_ns, "{begin:?}");
    }
    Ok(())
}

fn orphaned_by_linger2(sandbox: &Sandbox) -> Result<()> {
    let tracer = Traced::watch(sandbox, &[])?;
    let pair = Meeting::new(Flavour::V6)?.pair()?;
    set_linger2(&pair.client, 2)?;
    drop(pair.client);
    tracer.wait_for_close(pair.client_addr, SOON)?;
    let run = tracer.finish()?;
    let end = run.one(pair.client_addr, pair.server_addr, "FIN_WAIT2", "CLOSE")?;
    within("orphaned FIN_WAIT2", end.dwell()?, &timer_ns(2)?)?;
    ensure!(end.end.as_deref() == Some("timed_out"), "{end:?}");
    Ok(())
}

/// `tcp_fin_time() > TCP_TIMEWAIT_LEN`: a full socket for the excess, then a mini for the excess again.
fn above_sixty(sandbox: &Sandbox) -> Result<()> {
    let tracer = Traced::watch(sandbox, &[])?;
    let meeting = Meeting::new(Flavour::V4)?;
    let mut pairs = Vec::new();
    for excess in [1, 10] {
        // Read when the FIN is acknowledged, and again when the first half is over.
        sandbox.set_sysctl(FIN_TIMEOUT, &(60 + excess).to_string())?;
        let pair = meeting.pair()?;
        let (client, server) = (pair.client_addr, pair.server_addr);
        drop(pair.client);
        // Ten seconds are enough to look on a busy machine.
        if excess == 10 {
            sleep_ms(600);
            let first = truth::socket(client, server)?;
            ensure!(first.as_ref().is_some_and(|socket| !socket.is_mini()), "not a full socket: {first:?}");
            let is_mini = || truth::socket(client, server).is_ok_and(|it| it.is_some_and(|it| it.is_mini()));
            wait_until("the mini", SOON, is_mini)?;
        }
        tracer.wait_for_close(client, SOON)?;
        pairs.push((excess, client, server, pair.server));
    }
    let run = tracer.finish()?;
    for (excess, client, server, _) in &pairs {
        let end = run.one(*client, *server, "FIN_WAIT2", "CLOSE")?;
        let one = timer_ns(*excess)?;
        within("orphaned FIN_WAIT2", end.dwell()?, &(one.start() * 2..=one.end() * 2))?;
        ensure!(end.phase.as_deref() == Some("orphaned"), "{end:?}");
        ensure!(end.end.as_deref() == Some("timed_out"), "{end:?}");
    }
    Ok(())
}

fn negative_linger2(sandbox: &Sandbox) -> Result<()> {
    let tracer = Traced::watch(sandbox, &[])?;
    let pair = Meeting::new(Flavour::V4)?.pair()?;
    set_linger2(&pair.client, -1)?;
    drop(pair.client);
    sleep_ms(200);
    ensure!(truth::minis()? == 0);
    let run = tracer.finish()?;
    run.expect_path(
        pair.client_addr,
        pair.server_addr,
        &["ESTABLISHED→FIN_WAIT1", "FIN_WAIT1→FIN_WAIT2", "FIN_WAIT2→CLOSE"],
    )?;
    let end = run.one(pair.client_addr, pair.server_addr, "FIN_WAIT2", "CLOSE")?;
    ensure!(end.end.as_deref() == Some("reset"), "{end:?}");
    Ok(())
}

fn data_after_close(sandbox: &Sandbox) -> Result<()> {
    let tracer = Traced::watch(sandbox, &[])?;
    let mut pair = Meeting::new(Flavour::V4)?.pair()?;
    drop(pair.client);
    sleep_ms(200);
    ensure!(truth::minis()? == 1, "no orphan");
    let (sent, ()) =
        until(|| send(&mut pair.server, b"late"), "the end of the orphan", || Ok(truth::minis()? == 0))?;
    tracer.wait_for_close(pair.client_addr, SOON)?;
    let run = tracer.finish()?;
    let end = run.one(pair.client_addr, pair.server_addr, "FIN_WAIT2", "CLOSE")?;
    ensure!(end.phase.as_deref() == Some("orphaned"), "{end:?}");
    ensure!(end.end.as_deref() == Some("reset"), "{end:?}");
    within("mono_ns of the data", end.mono_ns, &(sent.after_ns..=sent.before_ns))
}

fn half_closed(sandbox: &Sandbox) -> Result<()> {
    sandbox.set_sysctl(FIN_TIMEOUT, "1")?;
    let tracer = Traced::watch(sandbox, &[])?;
    let mut pair = Meeting::new(Flavour::V4)?.pair()?;
    let (shut, outcome) = timed(|| pair.client.shutdown(Shutdown::Write));
    outcome?;
    read_eof(&mut pair.server)?;
    // Longer than tcp_fin_timeout, which has no say here.
    sleep_ms(2000);
    let socket = truth::socket(pair.client_addr, pair.server_addr)?;
    ensure!(
        socket.as_ref().is_some_and(|socket| !socket.is_mini() && socket.state == truth::state::FIN_WAIT2),
        "{socket:?}"
    );
    let (client, server) = (pair.client_addr, pair.server_addr);
    let (answered, ()) = until(
        || {
            drop(pair.server);
            Ok(())
        },
        "TIME_WAIT in the kernel",
        || truth::is_mini(client, server, truth::state::TIME_WAIT),
    )?;
    let run = tracer.finish()?;
    let fin_wait1 = run.one(pair.client_addr, pair.server_addr, "FIN_WAIT1", "FIN_WAIT2")?.dwell()?;
    let end = run.one(pair.client_addr, pair.server_addr, "FIN_WAIT2", "TIME_WAIT")?;
    within("half-closed FIN_WAIT2", fin_wait1 + end.dwell()?, &between(shut, answered))?;
    ensure!(end.phase.as_deref() == Some("half_closed"), "{end:?}");
    ensure!(end.owner.as_ref().is_some_and(|owner| owner.pid == std::process::id()), "{end:?}");
    Ok(())
}

/// close() in FIN_WAIT2 turns the half-closed socket into an orphan: two phases with a dwell each.
fn half_closed_then_closed(sandbox: &Sandbox) -> Result<()> {
    sandbox.set_sysctl(FIN_TIMEOUT, "2")?;
    let tracer = Traced::watch(sandbox, &[])?;
    let mut pair = Meeting::new(Flavour::V4)?.pair()?;
    let (shut, outcome) = timed(|| pair.client.shutdown(Shutdown::Write));
    outcome?;
    read_eof(&mut pair.server)?;
    sleep_ms(1200);
    let (closed, ()) = timed(|| drop(pair.client));
    tracer.wait_for_close(pair.client_addr, SOON)?;
    let run = tracer.finish()?;
    let of = run.of(pair.client_addr, pair.server_addr);
    let phase = |name: &str| {
        let mut found =
            of.iter().filter(|line| line.from == "FIN_WAIT2" && line.phase.as_deref() == Some(name));
        found.next().ok_or_else(|| anyhow::anyhow!("no {name} phase in {of:#?}"))
    };
    let half_closed = phase("half_closed")?;
    let fin_wait1 = run.one(pair.client_addr, pair.server_addr, "FIN_WAIT1", "FIN_WAIT2")?.dwell()?;
    within("half-closed FIN_WAIT2", fin_wait1 + half_closed.dwell()?, &between(shut, closed))
        .with_context(|| format!("{of:#?}"))?;
    let orphaned = phase("orphaned")?;
    within("orphaned FIN_WAIT2", orphaned.dwell()?, &timer_ns(2)?)?;
    ensure!(orphaned.end.as_deref() == Some("timed_out"), "{orphaned:?}");
    Ok(())
}
