//! Sockets that are not quite TCP.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use tcptrace::sandbox::Sandbox;
use tests::clock::{between, sleep_ms, timed};
use tests::expect::within;
use tests::sockets::MptcpPair;
use tests::traced::Traced;
use tests::trial::live;

pub fn trials() -> Vec<Trial> {
    let mptcp = live("mptcp_close_wait_is_seen_once", mptcp_close_wait);
    vec![mptcp.with_ignored_flag(!MptcpPair::is_possible())]
}

/// What the application leaks is one socket, though TCP sees two (the connection and its subflow).
fn mptcp_close_wait(sandbox: &Sandbox) -> Result<()> {
    let tracer = Traced::watch(sandbox, &[])?;
    let MptcpPair { listener: _listener, client, server } = MptcpPair::new()?;
    sleep_ms(100);
    let (began, ()) = timed(|| drop(client));
    sleep_ms(800);
    let (ended, ()) = timed(|| drop(server));
    sleep_ms(200);
    let run = tracer.finish()?;
    let ends: Vec<_> = run
        .transitions
        .iter()
        .filter(|line| line.from == "CLOSE_WAIT" && line.dwell_ns.is_some_and(|ns| ns > 400_000_000))
        .collect();
    ensure!(ends.len() == 1, "{ends:#?} of {:#?}", run.transitions);
    // MPTCP's worker takes DATA_FIN in, and acknowledges it, when it comes to it.
    let sure = between(began, ended);
    within("CLOSE_WAIT", ends[0].dwell()?, &(sure.start() - 300_000_000..=sure.end() + 500_000_000))
}
