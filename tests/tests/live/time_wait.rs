//! TIME_WAIT: to its natural end, and the ways in which it ends earlier or never begins.

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use tcptrace::sandbox::Sandbox;
use tests::clock::{Moment, between, now_ns, sleep_ms, timed, until};
use tests::expect::{timer_ns, within};
use tests::sockets::{Flavour, Meeting, Pair, read_eof};
use tests::spawn;
use tests::traced::{Traced, Transition};
use tests::trial::live;
use tests::truth::{self, Counters};

const TCP_TIMEWAIT_LEN_S: u32 = 60;
/// For what happens at once, where the machine has time for it.
const SOON: Duration = Duration::from_secs(60);

pub fn trials() -> Vec<Trial> {
    vec![
        live("thirty_time_waits_to_their_natural_end_and_ten_orphans", natural_end),
        live("time_wait_reused_by_connect", reused_by_connect),
        live("time_wait_reused_by_a_bound_port", reused_by_bound_port),
        live("time_wait_reused_by_an_incoming_syn", reused_by_incoming_syn),
        live("time_wait_skipped_when_buckets_overflow", overflow),
        live("time_wait_ended_by_reset", ended_by_reset),
        live("time_wait_destroyed", destroyed).with_ignored_flag(!truth::has_ss()),
        live("time_wait_of_a_namespace_that_goes", namespace_gone),
    ]
}

/// Local and remote end.
type Ends = (SocketAddr, SocketAddr);

/// Active close by the client, completed by the server; says when, up to the moment when the kernel shows
/// TIME_WAIT, or nothing more.
fn close_client_first(pair: Pair) -> Result<(Moment, Ends)> {
    let ends = (pair.client_addr, pair.server_addr);
    close_in_turn(pair.client, pair.server, ends)
}

/// Closes one end, then the other, whose addresses are `ends` as the first one sees them.
fn close_in_turn(first: TcpStream, mut second: TcpStream, ends: Ends) -> Result<(Moment, Ends)> {
    let close = || {
        drop(first);
        read_eof(&mut second)?;
        drop(second);
        Ok(ends)
    };
    until(close, "TIME_WAIT in the kernel", || {
        let socket = truth::socket(ends.0, ends.1)?;
        Ok(socket.is_none_or(|socket| socket.state == truth::state::TIME_WAIT))
    })
}

/// The end of the one TIME_WAIT between these ends.
fn end_of(transitions: &[Transition], (local, remote): Ends) -> Result<&Transition> {
    transitions
        .iter()
        .find(|line| line.local == local && line.remote == remote && line.from == "TIME_WAIT")
        .with_context(|| format!("the TIME_WAIT of {local} → {remote} has no end"))
}

/// What `watch --json` owes to somebody who closes 30 connections and orphans 10 at tcp_fin_timeout 3.
fn natural_end(sandbox: &Sandbox) -> Result<()> {
    sandbox.set_sysctl("net.ipv4.tcp_fin_timeout", "3")?;
    let tracer = Traced::watch(sandbox, &[])?;
    let mut closed = Vec::new();
    for flavour in Flavour::ALL {
        let meeting = Meeting::new(flavour)?;
        for _ in 0..10 {
            closed.push(close_client_first(meeting.pair()?)?);
        }
    }
    let meeting = Meeting::new(Flavour::V4)?;
    let begun = now_ns();
    let mut servers = Vec::new();
    let mut orphaned = Vec::new();
    for _ in 0..10 {
        let pair = meeting.pair()?;
        drop(pair.client);
        orphaned.push((pair.client_addr, pair.server_addr));
        servers.push(pair.server);
    }
    sleep_ms(300);
    // On a machine that stands still for that long the first are gone by now.
    let resting = truth::count(truth::state::TIME_WAIT)?;
    let first = closed[0].0.after_ns;
    ensure!(resting == 30 || now_ns() - first > 60_000_000_000, "{resting} in TIME_WAIT");
    let orphans = truth::count(truth::state::FIN_WAIT2)?;
    ensure!(orphans == 10 || now_ns() - begun > 3_000_000_000, "{orphans} orphans");
    if let Some(text) = truth::ss(&["state", "time-wait"])? {
        ensure!(text.lines().count() == 30 || now_ns() - first > 60_000_000_000, "ss shows\n{text}");
    }

    // The kernel's own count falls to 0 no earlier and no later than the wheel allows.
    let mut gone = None;
    tests::clock::wait_until("the end of every TIME_WAIT", Duration::from_secs(80), || {
        let minis = truth::minis().unwrap_or(u64::MAX);
        if minis == 0 {
            gone.get_or_insert_with(now_ns);
        }
        minis == 0
    })?;
    let run = tracer.finish()?;
    let wheel = timer_ns(TCP_TIMEWAIT_LEN_S)?;
    let me = std::process::id();
    for (began, ends) in &closed {
        let end = end_of(&run.transitions, *ends)?;
        within("TIME_WAIT", end.dwell()?, &wheel)?;
        ensure!(end.to == "CLOSE" && end.end.as_deref() == Some("expired"), "{end:?}");
        ensure!(!end.dwell_is_lower_bound, "{end:?}");
        ensure!(
            end.owner.as_ref().is_some_and(|owner| owner.pid == me && owner.evidence == "close"),
            "{end:?}"
        );
        let latest = gone.context("seen")?;
        within("end of TIME_WAIT", end.mono_ns, &(began.after_ns + wheel.start()..=latest))?;
    }
    for &(local, remote) in &orphaned {
        let end = run.one(local, remote, "FIN_WAIT2", "CLOSE")?;
        within("orphaned FIN_WAIT2", end.dwell()?, &timer_ns(3)?)?;
        ensure!(end.phase.as_deref() == Some("orphaned"), "{end:?}");
        ensure!(end.end.as_deref() == Some("timed_out"), "{end:?}");
        ensure!(
            end.owner.as_ref().is_some_and(|owner| owner.pid == me && owner.evidence == "close"),
            "{end:?}"
        );
    }
    // At this rate nothing is lost. Programs run for the sockets of every namespace, so that skipped runs, and the dumps
    // that follow them, may be for others' sake: none of these has cost anything here, as the above shows.
    for (cause, lost) in &run.summary.loss {
        let may_be_others = ["skipped_runs", "resyncs"].contains(&cause.as_str());
        ensure!(*lost == 0 || may_be_others, "{:?}", run.summary.loss);
    }
    let expired = run.transitions.iter().filter(|line| line.from == "TIME_WAIT").count();
    ensure!(expired == 30, "{expired} TIME_WAITs ended, 30 began");
    Ok(())
}

/// Four ports for more connections than four: connect() takes them over after a second.
fn reused_by_connect(sandbox: &Sandbox) -> Result<()> {
    sandbox.set_sysctl("net.ipv4.tcp_tw_reuse", "0")?;
    sandbox.set_sysctl("net.ipv4.ip_local_port_range", "40000 40003")?;
    let tracer = Traced::watch(sandbox, &[])?;
    let meeting = Meeting::on(Flavour::V4, 8080)?;
    let mut first = Vec::new();
    for _ in 0..4 {
        first.push(close_client_first(meeting.pair()?)?);
    }
    ensure!(TcpStream::connect(meeting.addr()?).is_err(), "a port was free");
    sandbox.set_sysctl("net.ipv4.tcp_tw_reuse", "1")?;
    // tcp_tw_reuse_delay is 1 s, in steps of the timestamp clock; before 6.14 it was fixed at 1 s.
    sleep_ms(2100);
    let mut second = Vec::new();
    for _ in 0..4 {
        let (opened, pair) = timed(|| meeting.pair());
        second.push((opened, pair?));
    }
    ensure!(Counters::read()?.get("TcpExtTWRecycled")? == 4, "the kernel did not reuse four");
    let run = tracer.finish()?;
    for (began, ends) in first {
        let end = end_of(&run.transitions, ends)?;
        ensure!(end.end.as_deref() == Some("reused"), "{end:?}");
        let (opened, _) = second
            .iter()
            .find(|(_, pair)| pair.client_addr == ends.0)
            .context("every port was taken over")?;
        within("reused TIME_WAIT", end.dwell()?, &between(began, *opened))?;
    }
    Ok(())
}

/// An explicitly bound port takes over its TIME_WAIT at once, whatever tcp_tw_reuse says
/// (`__inet_check_established()` without `twp`).
fn reused_by_bound_port(sandbox: &Sandbox) -> Result<()> {
    sandbox.set_sysctl("net.ipv4.tcp_tw_reuse", "0")?;
    let tracer = Traced::watch(sandbox, &[])?;
    let meeting = Meeting::on(Flavour::V4, 8080)?;
    let (began, ends) = close_client_first(meeting.pair_from(41000)?)?;
    sleep_ms(100);
    let (opened, pair) = timed(|| meeting.pair_from(41000));
    let pair = pair?;
    ensure!(pair.client_addr == ends.0);
    let run = tracer.finish()?;
    let end = end_of(&run.transitions, ends)?;
    ensure!(end.end.as_deref() == Some("reused"), "{end:?}");
    within("reused TIME_WAIT", end.dwell()?, &between(began, opened))
}

/// The server closed first; the same client port comes again with a newer timestamp (`TCP_TW_SYN`).
fn reused_by_incoming_syn(sandbox: &Sandbox) -> Result<()> {
    let tracer = Traced::watch(sandbox, &[])?;
    let meeting = Meeting::on(Flavour::V6, 8080)?;
    let pair = meeting.pair_from(41000)?;
    let (began, ends) = close_in_turn(pair.server, pair.client, (pair.server_addr, pair.client_addr))?;
    sleep_ms(100);
    ensure!(truth::count(truth::state::TIME_WAIT)? == 1);
    let (opened, pair) = timed(|| meeting.pair_from(41000));
    let _kept = pair?;
    ensure!(truth::count(truth::state::TIME_WAIT)? == 0, "the kernel kept the TIME_WAIT");
    let run = tracer.finish()?;
    let end = end_of(&run.transitions, ends)?;
    ensure!(end.end.as_deref() == Some("reused"), "{end:?}");
    within("reused TIME_WAIT", end.dwell()?, &between(began, opened))
}

fn overflow(sandbox: &Sandbox) -> Result<()> {
    const BUCKETS: u64 = 5;
    const CLOSES: u64 = 20;
    sandbox.set_sysctl("net.ipv4.tcp_max_tw_buckets", &BUCKETS.to_string())?;
    let tracer = Traced::watch(sandbox, &[])?;
    let meeting = Meeting::new(Flavour::V4)?;
    let mut all = Vec::new();
    for _ in 0..CLOSES {
        all.push(close_client_first(meeting.pair()?)?.1);
    }
    let skipped = Counters::read()?.get("TcpExtTCPTimeWaitOverflow")?;
    let minis = truth::minis()?;
    ensure!(skipped + minis == CLOSES, "{skipped} skipped and {minis} kept of {CLOSES}");
    let run = tracer.finish()?;
    let mut overflowed = 0;
    for (local, remote) in all {
        let of = run.of(local, remote);
        let last = *of.iter().find(|line| line.from == "FIN_WAIT2").context("seen")?;
        if last.to == "CLOSE" {
            ensure!(last.from == "FIN_WAIT2" && last.end.as_deref() == Some("overflow"), "{last:?}");
            overflowed += 1;
        } else {
            ensure!(last.to == "TIME_WAIT", "{last:?}");
        }
    }
    ensure!(overflowed == skipped, "{overflowed} overflows told, {skipped} counted by the kernel");
    Ok(())
}

/// tcp_rfc1337=0: an RST ends TIME_WAIT. The kernel is made to send it: a SYN from the other end is answered by
/// the TIME_WAIT's last ACK, which a socket in SYN_SENT did not expect (RFC 1337's hazard).
fn ended_by_reset(sandbox: &Sandbox) -> Result<()> {
    let tracer = Traced::watch(sandbox, &[])?;
    let meeting = Meeting::on(Flavour::V4, 8080)?;
    let (_, ends) = close_client_first(meeting.pair()?)?;
    drop(meeting);
    sleep_ms(200);
    ensure!(truth::minis()? == 1);
    let gone = || Ok(truth::minis()? == 0);
    let (ended, ()) = until(|| connect_without_waiting(ends.1, ends.0), "the end of TIME_WAIT", gone)?;
    tracer.wait_for_close(ends.0, SOON)?;
    let run = tracer.finish()?;
    let end = end_of(&run.transitions, ends)?;
    ensure!(end.to == "CLOSE" && end.end.as_deref() == Some("reset"), "{end:?}");
    within("mono_ns of the RST", end.mono_ns, &(ended.after_ns..=ended.before_ns))
}

/// One SYN from `local` to `remote`; the socket is closed at once.
fn connect_without_waiting(local: SocketAddr, remote: SocketAddr) -> Result<()> {
    use socket2::{Domain, SockAddr, Socket, Type};
    let socket = Socket::new(Domain::for_address(local), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(local))?;
    socket.set_nonblocking(true)?;
    let outcome = socket.connect(&SockAddr::from(remote));
    ensure!(outcome.is_err_and(|error| error.raw_os_error() == Some(libc::EINPROGRESS)));
    Ok(())
}

/// `ss -K` (`tcp_abort()`, CONFIG_INET_DIAG_DESTROY), just before the trace ends: what is not decided by then
/// is decided then.
fn destroyed(sandbox: &Sandbox) -> Result<()> {
    let tracer = Traced::watch(sandbox, &[])?;
    let (_, ends) = close_client_first(Meeting::new(Flavour::V4)?.pair()?)?;
    sleep_ms(100);
    let began_ns = now_ns();
    let mut command = Command::new("ss");
    command.args(["-K", "-tan", "state", "time-wait", "dst"]).arg(ends.1.to_string()).stdout(Stdio::null());
    ensure!(spawn::start(&mut command)?.wait()?.success());
    let killed = Moment { after_ns: began_ns, before_ns: now_ns() };
    let is_kept = truth::minis()? == 1;
    let run = tracer.finish()?;
    // 5.10 takes the request for full sockets only; 6.1 is the oldest that was seen to do it.
    if is_kept && truth::kernel()? < (6, 1) {
        ensure!(end_of(&run.transitions, ends).is_err(), "an end was told, and the kernel still has it");
        println!("this kernel destroys no TIME_WAIT, and none was said to be destroyed");
        return Ok(());
    }
    ensure!(!is_kept, "the kernel kept the TIME_WAIT");
    let end = end_of(&run.transitions, ends)?;
    ensure!(end.end.as_deref() == Some("destroyed"), "{end:?}");
    within("mono_ns of ss -K", end.mono_ns, &(killed.after_ns..=killed.before_ns))
}

/// A namespace that goes takes its TIME_WAITs along.
fn namespace_gone(_: &Sandbox) -> Result<()> {
    const PORT: u16 = 8099;
    let short_lived = Sandbox::new()?;
    // From outside, or the namespace would not go.
    let tracer = Traced::start(&["watch", "--json", "--port", &PORT.to_string()])?;
    let ends = short_lived.enter(|| {
        tracer.wait_until_it_sees(PORT)?;
        let (_, ends) = close_client_first(Meeting::on(Flavour::V4, PORT)?.pair()?)?;
        ensure!(truth::minis()? == 1);
        Ok(ends)
    })??;
    let netns = short_lived.netns();
    drop(short_lived);
    tracer.wait_for_close(ends.0, Duration::from_secs(60))?;
    let run = tracer.finish()?;
    let end = end_of(&run.transitions, ends)?;
    ensure!(end.netns == netns && end.end.as_deref() == Some("destroyed"), "{end:?}");
    Ok(())
}
