//! Twenty thousand connections, every one accounted for.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use tcptrace::sandbox::Sandbox;
use tests::clock::{now_ns, sleep_ms, wait_until};
use tests::expect::{timer_ns, within};
use tests::traced::Traced;
use tests::trial::live;
use tests::truth::{self, Counters};

pub fn trials() -> Vec<Trial> {
    vec![live("twenty_thousand_connections_all_accounted_for", all_accounted_for)]
}

const CONNECTIONS: u64 = 20_000;
/// States that every connection goes through, and at how many of its ends. The active side takes FIN_WAIT1,
/// FIN_WAIT2 and TIME_WAIT, the passive one CLOSE_WAIT and LAST_ACK.
const STATES: [(&str, u64); 7] = [
    ("SYN_SENT", 1),
    ("ESTABLISHED", 2),
    ("FIN_WAIT1", 1),
    ("FIN_WAIT2", 1),
    ("TIME_WAIT", 1),
    ("CLOSE_WAIT", 1),
    ("LAST_ACK", 1),
];

fn all_accounted_for(sandbox: &Sandbox) -> Result<()> {
    // Without reuse and with two destination ports there are four-tuples for all of them.
    sandbox.set_sysctl("net.ipv4.tcp_tw_reuse", "0")?;
    sandbox.set_sysctl("net.ipv4.ip_local_port_range", "10000 60999")?;
    let states = STATES.map(|(state, _)| state).join(",");
    let tracer = Traced::report(sandbox, &["--state", &states])?;
    let before = Counters::read()?;
    let begun = now_ns();
    for port in [5001, 5002] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        for _ in 0..CONNECTIONS / 2 {
            let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            let (server, _) = listener.accept()?;
            drop(client);
            drop(server);
        }
    }
    sleep_ms(200);
    let minis = truth::minis()?;
    // On a machine that takes a minute for this, the first have run out.
    let is_fast = now_ns() - begun < 60_000_000_000;
    wait_until("the end of every TIME_WAIT", Duration::from_secs(80), || {
        truth::minis().is_ok_and(|left| left == 0)
    })?;
    let run = tracer.finish()?;
    let after = Counters::read()?;
    let grown = |name: &str| Ok::<_, anyhow::Error>(after.get(name)? - before.get(name)?);
    ensure!(grown("TcpActiveOpens")? == CONNECTIONS && grown("TcpPassiveOpens")? == CONNECTIONS);
    ensure!(grown("TcpExtTCPTimeWaitOverflow")? == 0);
    ensure!(minis == CONNECTIONS || !is_fast, "the kernel had {minis} minis");

    let finished = |state: &str, phase: Option<&str>| -> Result<u64> {
        let report = match run.report(state, phase) {
            Ok(report) => report,
            Err(_) => return Ok(0),
        };
        ensure!(report["open"]["count"] == 0, "{report}");
        report["finished"]["count"].as_u64().with_context(|| report.to_string())
    };
    for (state, sides) in STATES {
        let phases = [None, Some("orphaned"), Some("half_closed")];
        let count = phases.into_iter().map(|phase| finished(state, phase)).sum::<Result<u64>>()?;
        let expected = sides * CONNECTIONS;
        // Exactly, or what is missing is stated as loss.
        let at_least = expected - run.lost().min(expected);
        ensure!(
            (at_least..=expected).contains(&count),
            "{count} dwells in {state}, the kernel counts {expected}; {:?}",
            run.summary.loss
        );
    }

    let time_wait = run.report("TIME_WAIT", None)?;
    let expired = time_wait["ends"]["expired"].as_u64().unwrap_or(0);
    ensure!((CONNECTIONS - run.lost()..=CONNECTIONS).contains(&expired), "{time_wait}");
    let wheel = timer_ns(60)?;
    // Histograms keep three significant digits.
    let wheel = wheel.start() - wheel.start() / 1000..=wheel.end() + wheel.end() / 1000;
    for figure in ["min_ns", "p50_ns", "p99_ns", "max_ns"] {
        let ns = time_wait["finished"][figure].as_u64().with_context(|| format!("{figure}: {time_wait}"))?;
        within(figure, ns, &wheel)?;
    }
    ensure!(run.lines.iter().all(|line| line["type"] != Value::Null));
    Ok(())
}
