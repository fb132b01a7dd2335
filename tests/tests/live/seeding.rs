//! Sockets older than the tool: known from a dump, with lower bounds, never with 0.

use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use libtest_mimic::Trial;
use tcptrace::sandbox::Sandbox;
use tests::clock::{Moment, between, now_ns, sleep_ms, timed};
use tests::expect::within;
use tests::sockets::{Flavour, Meeting, read_eof};
use tests::traced::{Run, Traced};
use tests::trial::live;

pub fn trials() -> Vec<Trial> {
    vec![
        live("close_wait_older_than_the_tool", close_wait),
        live("half_closed_older_than_the_tool", half_closed),
        live("orphan_older_than_the_tool", orphan),
        live("sockets_older_than_the_tool_are_open_in_the_report", open_in_report),
    ]
}

/// How long the first dump is given, milliseconds: nothing tells that it is in, and on a busy machine it takes its
/// time. What ends before has an age that is not known.
const DUMP_MS: [u64; 4] = [300, 2_000, 8_000, 30_000];

/// Does it with longer and longer pauses, until the dump was in time.
fn until_dumped(once: impl Fn(u64) -> Result<bool>) -> Result<()> {
    for pause_ms in DUMP_MS {
        if once(pause_ms)? {
            return Ok(());
        }
    }
    bail!("the dump was not in time, again and again")
}

/// Closes a socket that is older than the tool by more than a second: when the tool was started, when the socket was
/// closed, and what was said.
fn traced_to_the_end(sandbox: &Sandbox, pause_ms: u64, socket: TcpStream) -> Result<(u64, Moment, Run)> {
    sleep_ms(1500);
    let tool = now_ns();
    let tracer = Traced::watch(sandbox, &[])?;
    sleep_ms(pause_ms);
    let (ended, ()) = timed(|| drop(socket));
    Ok((tool, ended, tracer.finish()?))
}

fn close_wait(sandbox: &Sandbox) -> Result<()> {
    until_dumped(|pause_ms| {
        let mut pair = Meeting::new(Flavour::V4)?.pair()?;
        let (began, ()) = timed(|| drop(pair.client));
        read_eof(&mut pair.server)?;
        let (tool, ended, run) = traced_to_the_end(sandbox, pause_ms, pair.server)?;
        let line = run.one(pair.server_addr, pair.client_addr, "CLOSE_WAIT", "LAST_ACK")?;
        let Some(dwell_ns) = line.dwell_ns else { return Ok(false) };
        ensure!(line.dwell_is_lower_bound, "{line:?}");
        // tcpi_last_ack_recv, in whole milliseconds, is older than the tool.
        within("lower bound", dwell_ns, &(ended.after_ns - tool..=*between(began, ended).end()))?;
        ensure!(line.owner.as_ref().is_some_and(|owner| owner.pid == std::process::id()), "{line:?}");
        Ok(true)
    })
}

fn half_closed(sandbox: &Sandbox) -> Result<()> {
    until_dumped(|pause_ms| {
        let mut pair = Meeting::new(Flavour::V6)?.pair()?;
        let (began, outcome) = timed(|| pair.client.shutdown(Shutdown::Write));
        outcome?;
        read_eof(&mut pair.server)?;
        let (tool, ended, run) = traced_to_the_end(sandbox, pause_ms, pair.server)?;
        let line = run.one(pair.client_addr, pair.server_addr, "FIN_WAIT2", "TIME_WAIT")?;
        let Some(dwell_ns) = line.dwell_ns else { return Ok(false) };
        ensure!(line.dwell_is_lower_bound && line.phase.as_deref() == Some("half_closed"), "{line:?}");
        within("lower bound", dwell_ns, &(ended.after_ns - tool..=*between(began, ended).end()))?;
        Ok(true)
    })
}

fn orphan(sandbox: &Sandbox) -> Result<()> {
    // Long enough for the tool to start on a busy machine: 60 s, the default.
    let pair = Meeting::new(Flavour::V4)?.pair()?;
    let (began, ()) = timed(|| drop(pair.client));
    sleep_ms(1000);
    let tool = now_ns();
    let tracer = Traced::watch(sandbox, &[])?;
    tracer.wait_for_close(pair.client_addr, Duration::from_secs(120))?;
    let run = tracer.finish()?;
    let line = run.one(pair.client_addr, pair.server_addr, "FIN_WAIT2", "CLOSE")?;
    ensure!(line.end.as_deref() == Some("timed_out"), "{line:?}");
    let dwell = line.dwell()?;
    let true_dwell_at_most = line.mono_ns - began.after_ns;
    ensure!(dwell <= true_dwell_at_most, "{dwell} ns is more than the truth: {line:?}");
    // A mini's timer does not tell when FIN_WAIT2 began: it was first seen in the dump, which is younger than the tool.
    ensure!(line.dwell_is_lower_bound && dwell > 0 && dwell <= line.mono_ns - tool, "{line:?}");
    Ok(())
}

fn open_in_report(sandbox: &Sandbox) -> Result<()> {
    let meeting = Meeting::new(Flavour::V4)?;
    let mut kept = Vec::new();
    for _ in 0..7 {
        let mut pair = meeting.pair()?;
        drop(pair.client);
        read_eof(&mut pair.server)?;
        kept.push(pair.server);
    }
    sleep_ms(1200);
    let netns = sandbox.netns().to_string();
    let run = Traced::start(&["report", "--json", "--duration", "1s", "--netns", &netns])?
        .ended(Duration::from_secs(60))?;
    let report = run.report("CLOSE_WAIT", None)?;
    ensure!(report["finished"]["count"] == 0 && report["open"]["count"] == 7, "{report}");
    let oldest = report["open"]["oldest_ns"].as_u64().context("oldest")?;
    ensure!(oldest >= 1_000_000_000, "{report}");
    drop(kept);
    Ok(())
}
