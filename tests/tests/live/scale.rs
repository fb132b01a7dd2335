//! Twenty thousand connections, every one accounted for.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use tcptrace::sandbox::Sandbox;
use tests::clock::{sleep_ms, wait_until};
use tests::expect::{timer_ns, within};
use tests::traced::Traced;
use tests::trial::live;
use tests::truth::{self, Counters};

pub fn trials() -> Vec<Trial> {
    vec![live("twenty_thousand_connections_all_accounted_for", all_accounted_for)]
}

fn all_accounted_for(sandbox: &Sandbox) -> Result<()> {
    const CONNECTIONS: u64 = 20_000;
    // Without reuse and with two destination ports there are four-tuples for all of them.
    sandbox.set_sysctl("net.ipv4.tcp_tw_reuse", "0")?;
    sandbox.set_sysctl("net.ipv4.ip_local_port_range", "10000 60999")?;
    let netns = sandbox.netns().to_string();
    let tracer = Traced::start(&["report", "--json", "--netns", &netns])?;
    // watch shows when it sees connections; report does not. It is attached long before this.
    sleep_ms(3000);
    let before = Counters::read()?;
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
    wait_until("the end of every TIME_WAIT", Duration::from_secs(80), || {
        truth::minis().is_ok_and(|left| left == 0)
    })?;
    let run = tracer.finish()?;
    let after = Counters::read()?;
    let grown = |name: &str| Ok::<_, anyhow::Error>(after.get(name)? - before.get(name)?);
    ensure!(grown("TcpActiveOpens")? == CONNECTIONS && grown("TcpPassiveOpens")? == CONNECTIONS);
    ensure!(grown("TcpExtTCPTimeWaitOverflow")? == 0);
    ensure!(minis == CONNECTIONS, "the kernel had {minis} minis");

    let finished = |state: &str, phase: Option<&str>| -> Result<u64> {
        let report = match run.report(state, phase) {
            Ok(report) => report,
            Err(_) => return Ok(0),
        };
        ensure!(report["open"]["count"] == 0, "{report}");
        report["finished"]["count"].as_u64().with_context(|| report.to_string())
    };
    // The active side goes through FIN_WAIT1, FIN_WAIT2 and TIME_WAIT, the passive one through CLOSE_WAIT and
    // LAST_ACK; both were ESTABLISHED.
    for (state, expected) in [
        ("ESTABLISHED", 2 * CONNECTIONS),
        ("SYN_SENT", CONNECTIONS),
        ("FIN_WAIT1", CONNECTIONS),
        ("CLOSE_WAIT", CONNECTIONS),
        ("LAST_ACK", CONNECTIONS),
        ("TIME_WAIT", CONNECTIONS),
    ] {
        let count = finished(state, None)?;
        ensure!(count == expected, "{count} dwells in {state}, the kernel counts {expected}");
    }
    let fin_wait2 = [None, Some("orphaned"), Some("half_closed")];
    let fin_wait2 = fin_wait2.into_iter().map(|phase| finished("FIN_WAIT2", phase)).sum::<Result<u64>>()?;
    ensure!(fin_wait2 == CONNECTIONS, "{fin_wait2} dwells in FIN_WAIT2");

    let time_wait = run.report("TIME_WAIT", None)?;
    ensure!(time_wait["ends"]["expired"].as_u64() == Some(CONNECTIONS), "{time_wait}");
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
