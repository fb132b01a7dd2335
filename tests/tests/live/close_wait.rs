//! CLOSE_WAIT and what ends it.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use tcptrace::sandbox::Sandbox;
use tests::clock::{Moment, between, now_ns, sleep_ms, timed, until};
use tests::expect::within;
use tests::helper::{COMM, Helper, Role};
use tests::sockets::{Flavour, Meeting, read_eof, reset, send};
use tests::traced::{Run, Traced, Transition};
use tests::trial::live;
use tests::truth;

pub fn trials() -> Vec<Trial> {
    vec![
        live("close_wait_ended_by_close", ended_by_close),
        live("close_wait_ended_by_exit", |sandbox| ended_by_process_end(sandbox, false)),
        live("close_wait_ended_by_sigkill", |sandbox| ended_by_process_end(sandbox, true)),
        live("close_wait_ended_by_reset", ended_by_reset),
        live("close_wait_ended_by_close_with_unread_data", ended_with_unread_data),
        live("close_wait_that_lasts_is_open_and_survives", lasting),
    ]
}

fn close_wait<'run>(
    run: &'run Run,
    local: SocketAddr,
    remote: SocketAddr,
    to: &str,
    began: Moment,
    ended: Moment,
) -> Result<&'run Transition> {
    let line = run.one(local, remote, "CLOSE_WAIT", to)?;
    within("CLOSE_WAIT", line.dwell()?, &between(began, ended))?;
    ensure!(!line.dwell_is_lower_bound, "{line:?}");
    Ok(line)
}

fn ended_by_close(sandbox: &Sandbox) -> Result<()> {
    let tracer = Traced::watch(sandbox, &[])?;
    let mut pair = Meeting::new(Flavour::V4)?.pair()?;
    let (began, outcome) = timed(|| {
        drop(pair.client);
        read_eof(&mut pair.server)
    });
    outcome?;
    sleep_ms(700);
    ensure!(truth::count(truth::state::CLOSE_WAIT)? == 1);
    let (ended, ()) = timed(|| drop(pair.server));
    let run = tracer.finish()?;
    let line = close_wait(&run, pair.server_addr, pair.client_addr, "LAST_ACK", began, ended)?;
    let owner = line.owner.as_ref();
    ensure!(
        owner.is_some_and(|owner| owner.pid == std::process::id() && owner.evidence == "close"),
        "{line:?}"
    );
    Ok(())
}

fn ended_by_process_end(sandbox: &Sandbox, killed: bool) -> Result<()> {
    let tracer = Traced::watch(sandbox, &[])?;
    let mut holder = Helper::start(Role::HoldUntilExit)?;
    let port: u16 = holder.line()?.parse()?;
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let (local, remote) = (client.peer_addr()?, client.local_addr()?);
    let (began, told) = timed(|| {
        drop(client);
        holder.line()
    });
    ensure!(told? == "eof");
    sleep_ms(400);
    let (ended, outcome) = timed(|| {
        if killed {
            holder.kill()
        } else {
            holder.go_on()?;
            holder.wait()
        }
    });
    outcome?;
    let run = tracer.finish()?;
    let line = close_wait(&run, local, remote, "LAST_ACK", began, ended)?;
    let owner = line.owner.as_ref();
    ensure!(owner.is_some_and(|owner| owner.pid == holder.pid() && owner.comm == COMM), "{line:?}");
    Ok(())
}

/// The peer closes with SO_LINGER 0 after shutting down: RST reaches a socket in CLOSE_WAIT.
fn ended_by_reset(sandbox: &Sandbox) -> Result<()> {
    let tracer = Traced::watch(sandbox, &[])?;
    let mut pair = Meeting::new(Flavour::V4)?.pair()?;
    let (began, outcome) = timed(|| {
        pair.client.shutdown(std::net::Shutdown::Write)?;
        read_eof(&mut pair.server)
    });
    outcome?;
    sleep_ms(300);
    let (client, server) = (pair.client_addr, pair.server_addr);
    let gone = || Ok(truth::socket(server, client)?.is_none());
    let (ended, ()) = until(|| reset(pair.client), "the end of CLOSE_WAIT", gone)?;
    let run = tracer.finish()?;
    let line = close_wait(&run, pair.server_addr, pair.client_addr, "CLOSE", began, ended)?;
    ensure!(line.end.as_deref() == Some("reset"), "{line:?}");
    Ok(())
}

/// close() with data in the receive queue sends RST instead of FIN (`__tcp_close()`, RFC 2525 2.17).
fn ended_with_unread_data(sandbox: &Sandbox) -> Result<()> {
    let tracer = Traced::watch(sandbox, &[])?;
    let mut pair = Meeting::new(Flavour::V6)?.pair()?;
    send(&mut pair.client, b"never read")?;
    let (began, ()) = until(
        || {
            drop(pair.client);
            Ok(())
        },
        "CLOSE_WAIT in the kernel",
        || Ok(truth::count(truth::state::CLOSE_WAIT)? == 1),
    )?;
    sleep_ms(300);
    let (ended, ()) = timed(|| drop(pair.server));
    let run = tracer.finish()?;
    let line = close_wait(&run, pair.server_addr, pair.client_addr, "CLOSE", began, ended)?;
    ensure!(line.end.as_deref() == Some("reset"), "{line:?}");
    ensure!(line.owner.as_ref().is_some_and(|owner| owner.pid == std::process::id()), "{line:?}");
    Ok(())
}

/// Three that end and five that do not: the report must not pretend that the five ended.
fn lasting(sandbox: &Sandbox) -> Result<()> {
    let reporter = Traced::report(sandbox, &[])?;
    let meeting = Meeting::new(Flavour::V4)?;
    let mut leaked = Vec::new();
    let before = now_ns();
    for number in 0..8 {
        let mut pair = meeting.pair()?;
        drop(pair.client);
        read_eof(&mut pair.server)?;
        if number < 3 {
            sleep_ms(20);
        } else {
            leaked.push(pair.server);
        }
    }
    sleep_ms(800);
    let run = reporter.finish()?;
    let oldest_possible = now_ns() - before;
    let report = run.report("CLOSE_WAIT", None)?;
    ensure!(report["finished"]["count"] == 3 && report["open"]["count"] == 5, "{report}");
    let oldest = report["open"]["oldest_ns"].as_u64().unwrap_or(0);
    ensure!(oldest > 500_000_000 && oldest < oldest_possible, "{report}");
    // Three of eight have ended: the median has not.
    ensure!(report["survival"]["p50_ns"].is_null(), "{report}");
    drop(leaked);
    Ok(())
}
