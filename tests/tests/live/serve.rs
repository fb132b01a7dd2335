//! `tcptrace serve`, scraped by a real Prometheus.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use tcptrace::sandbox::Sandbox;
use tcptrace::workload::Role;
use tests::clock::{sleep_ms, wait_until};
use tests::expect::{timer_ns, within};
use tests::exporter::{Exporter, Traffic};
use tests::prometheus::{self, Prometheus, deployed};
use tests::sockets::{Flavour, Meeting};
use tests::trial::{self, live};
use tests::{truth, web};

const PORT: u16 = 9435;
/// TIME_WAIT and the timer wheel's lateness at any HZ.
const TIME_WAIT_IS_OVER: Duration = Duration::from_secs(90);

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![live("serve_keeps_tracing_while_it_is_abused", abused)];
    let with_prometheus = [
        live("serve_and_prometheus_agree_on_classic_histograms", |sandbox| scraped(sandbox, false)),
        live("serve_and_prometheus_agree_on_native_histograms", |sandbox| scraped(sandbox, true)),
        live("the_histograms_of_two_exporters_can_be_added", merged),
        live("deployed_rules_pass_promtool", |_| deployed_rules()),
    ];
    let obstacle = if trial::is_one() { None } else { prometheus::obstacle() };
    if let Some(obstacle) = &obstacle {
        println!("SKIPPED {} tests with Prometheus: {obstacle}", with_prometheus.len());
    }
    trials.extend(with_prometheus.map(|trial| {
        let is_ignored = trial.has_ignored_flag() || obstacle.is_some();
        trial.with_ignored_flag(is_ignored)
    }));
    trials
}

/// Traffic that leaks and traffic that does not: the truth about TIME_WAIT comes out, the alert is about the one,
/// and every query of the dashboard is answered.
fn scraped(sandbox: &Sandbox, native: bool) -> Result<()> {
    // As between hosts: without it loopback's connections take each other's TIME_WAIT.
    sandbox.set_sysctl("net.ipv4.tcp_tw_reuse", "0")?;
    // Our own questions are no part of the traffic.
    let services = ["--port", "8080", "--port", "8083", "--port", "8084", "--port", "8085"];
    let exporter = Exporter::start(sandbox, PORT, &services)?;
    let prometheus = Prometheus::start(&[exporter.addr], native)?;
    let _traffic = [
        Traffic::start(sandbox, Role::Leaky, 8083, 1.0)?,
        Traffic::start(sandbox, Role::Server, 8080, 1.0)?,
        Traffic::start(sandbox, Role::Visitor, 8083, 3.0)?,
        Traffic::start(sandbox, Role::Client, 8080, 10.0)?,
    ];
    let begun = Instant::now();
    wait_until("the alert", Duration::from_secs(240), || {
        sleep_ms(500);
        prometheus.firing("TcpCloseWaitLeak").is_ok_and(|firing| !firing.is_empty())
    })?;
    // Prometheus must have seen the first TIME_WAITs end, and then more.
    let ended = "tcptrace_time_wait_ends_total{reason=\"expired\"}";
    wait_until("the end of TIME_WAITs", TIME_WAIT_IS_OVER, || {
        sleep_ms(500);
        prometheus.number(ended).is_ok_and(|ended| ended > 50.0)
    })?;
    ensure!(begun.elapsed() > Duration::from_secs(59), "TIME_WAIT lasts 60 s");

    let firing: BTreeSet<_> = prometheus.firing("TcpCloseWaitLeak")?.into_iter().collect();
    ensure!(firing == BTreeSet::from(["demo-leaky".to_owned()]), "{firing:?}");

    let p50 = if native {
        prometheus.number("histogram_quantile(0.5, sum(tcptrace_dwell_seconds{state=\"TIME_WAIT\"}))")?
    } else {
        prometheus.number(
            "histogram_quantile(0.5, sum by (le) (tcptrace_dwell_seconds_bucket{state=\"TIME_WAIT\"}))",
        )?
    };
    let truth = exporter.reported("TIME_WAIT", None, "p50_ns")?;
    within("the median of TIME_WAIT", truth, &timer_ns(60)?)?;
    // A classic bucket is half a second wide there, a native one 4.4 %.
    let bucket = if native { 2.7 } else { 0.5 };
    ensure!(
        (p50 - truth as f64 / 1e9).abs() <= bucket,
        "median {p50} s of Prometheus, {truth} ns of the trace"
    );

    let leaking = "tcptrace_close_wait_sockets{comm=\"demo-leaky\"}";
    let held = truth::count(truth::state::CLOSE_WAIT)? as f64;
    let shown = prometheus.number(leaking)?;
    ensure!(shown > 50.0 && (held - shown).abs() < 30.0, "{shown} shown, {held} there");
    let leaks = exporter.page("/leaks")?;
    ensure!(
        leaks.contains("\"comm\":\"demo-leaky\"") && !leaks.contains("\"comm\":\"demo-client\""),
        "{leaks}"
    );

    dashboard(&prometheus, native)?;
    promtool_accepts(&exporter.page("/metrics")?)?;
    // Skipped runs are left out: on a machine where every trial runs at once an interrupt may meet a program of ours
    // at work. They are rare, and mended.
    for cause in ["ring_full", "table_full"] {
        let lost = exporter.value(&format!("tcptrace_lost_events_total{{cause=\"{cause}\"}}"))?;
        ensure!(lost == 0.0, "{lost} × {cause}");
    }
    ensure!(exporter.stop()?.success());
    Ok(())
}

/// Every query of the dashboard, with its variables filled in.
fn dashboard(prometheus: &Prometheus, native: bool) -> Result<()> {
    let text = fs::read_to_string(deployed("grafana/tcptrace.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let targets = dashboard["panels"].as_array().context("panels")?.iter();
    let mut queries: Vec<&str> = targets
        .filter_map(|panel| panel["targets"].as_array())
        .flatten()
        .filter_map(|target| target["expr"].as_str())
        .collect();
    ensure!(queries.len() > 20, "{} queries", queries.len());
    queries.sort_unstable();
    queries.dedup();
    for query in queries {
        let expr = query
            .replace("$job", ".*")
            .replace("$instance", ".*")
            .replace("$state", "TIME_WAIT")
            .replace("$__rate_interval", "20s")
            .replace("$__range", "1m");
        ensure!(!expr.contains('$'), "unknown variable in {expr}");
        let answer = prometheus.query(&expr)?;
        // Each generation has the one kind of histogram only.
        let is_of_the_other =
            if native { "tcptrace_dwell_seconds_bucket" } else { "tcptrace_dwell_seconds{" };
        ensure!(expr.contains(is_of_the_other) || !answer.is_empty(), "no answer: {expr}");
    }
    Ok(())
}

fn promtool_accepts(metrics: &str) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), metrics)?;
    let output =
        Command::new("promtool").args(["check", "metrics"]).stdin(fs::File::open(file.path())?).output()?;
    // Complaints do not always make it fail.
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    Ok(())
}

/// Two exporters, each of a namespace with another tcp_fin_timeout: the quantiles of the sum are those of all
/// dwells together.
fn merged(sandbox: &Sandbox) -> Result<()> {
    let other = Sandbox::new()?;
    sandbox.set_sysctl("net.ipv4.tcp_fin_timeout", "1")?;
    other.set_sysctl("net.ipv4.tcp_fin_timeout", "4")?;
    let first = Exporter::start(sandbox, PORT, &[])?;
    // A namespace is found by a process that is in it.
    let _inhabitant = Traffic::start(&other, Role::Server, 8080, 1.0)?;
    let second = Exporter::start(&other, PORT + 1, &[])?;
    let prometheus = Prometheus::start(&[first.addr, second.addr], false)?;
    orphans(30)?;
    other.enter(|| orphans(20))??;
    let bucket = "tcptrace_dwell_seconds_bucket{state=\"FIN_WAIT2\",phase=\"orphaned\"}";
    let begun = Instant::now();
    // Each by itself: connections of the scrapes are in the first one's namespace, and may add to its orphans.
    let has_all = |exporter: &Exporter, count: f64| {
        let of_it = format!("instance=\"{}\"", exporter.addr);
        let ended = bucket.replace("\"orphaned\"", &format!("\"orphaned\",le=\"+Inf\",{of_it}"));
        // Seen; or, once there has been time for that, stated as loss.
        let stated = format!("sum({ended}) + sum(tcptrace_lost_events_total{{{of_it}}})");
        let seen = format!("sum({ended})");
        let query = if begun.elapsed() < Duration::from_secs(60) { seen } else { stated };
        prometheus.number(&query).is_ok_and(|number| number >= count)
    };
    wait_until("the end of all orphans", Duration::from_secs(240), || {
        sleep_ms(200);
        has_all(&first, 30.0) && has_all(&second, 20.0)
    })?;
    let quantile = |q: f64| prometheus.number(&format!("histogram_quantile({q}, sum by (le) ({bucket}))"));
    // 30 of 50 last 1 s, the other 4 s; bounds are at 1, 3 and 5 s.
    let (p50, p90) = (quantile(0.5)?, quantile(0.9)?);
    ensure!((1.0..=3.0).contains(&p50) && (3.0..=5.0).contains(&p90), "p50 {p50}, p90 {p90}");
    // The mean of the hosts' medians is neither.
    let apart = prometheus.query(&format!("histogram_quantile(0.5, sum by (instance, le) ({bucket}))"))?;
    let (least, most) = apart.iter().fold((f64::MAX, 0.0_f64), |(l, m), (_, v)| (l.min(*v), m.max(*v)));
    ensure!(apart.len() == 2 && least < 3.0 && most > 3.0, "{apart:?}");
    Ok(())
}

/// Connections whose client has closed and whose server has not, until the client's orphans have run out.
fn orphans(count: usize) -> Result<()> {
    let meeting = Meeting::new(Flavour::V4)?;
    let mut servers = Vec::new();
    for _ in 0..count {
        let pair = meeting.pair()?;
        drop(pair.client);
        servers.push(pair.server);
    }
    sleep_ms(6000);
    Ok(())
}

fn deployed_rules() -> Result<()> {
    for args in [["check", "rules", "tcptrace.rules.yml"], ["test", "rules", "tcptrace.rules.test.yml"]] {
        let output = Command::new("promtool").args(args).current_dir(deployed("prometheus")).output()?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(output.status.success() && said.contains("SUCCESS"), "{said}");
    }
    Ok(())
}

/// Everything that a stranger can do to a server without credentials.
fn abused(sandbox: &Sandbox) -> Result<()> {
    let exporter = Exporter::start(sandbox, PORT, &["--max-series", "2"])?;
    let events = || -> Result<u64> { exporter.health()?["events"].as_u64().context("events") };

    // Garbage, huge and endless headers, and other methods.
    for garbage in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        vec![b'A'; 100_000],
        [b"GET /metrics HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 1 << 20], b"\r\n\r\n".to_vec()].concat(),
        [b"GET / HTTP/1.1\r\n".to_vec(), b"A: b\r\n".repeat(5000), b"\r\n".to_vec()].concat(),
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"PUT /metrics HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\nx".to_vec(),
        b"GET /metrics HTTP/9.9\r\n\r\n".to_vec(),
        b"\r\n\r\n\0\0\0".to_vec(),
    ] {
        let said = say(exporter.addr, &garbage)?;
        let what = String::from_utf8_lossy(&said);
        ensure!(said.is_empty() || what.starts_with("HTTP/1.1 4"), "{what:?}");
    }

    // Clients that say nothing, or half of a request, or do not read.
    let mut silent = Vec::new();
    for number in 0..500 {
        let mut client = TcpStream::connect(exporter.addr)?;
        match number % 3 {
            0 => {}
            1 => client.write_all(b"GET /metrics HTTP/1.1\r\nHost:")?,
            _ => client.write_all(&b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50))?,
        }
        silent.push(client);
    }
    let before = events()?;
    let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
    let meeting = Meeting::new(Flavour::V4)?;
    for _ in 0..20 {
        for _ in 0..20 {
            drop(meeting.pair()?);
        }
        let asked = Instant::now();
        ensure!(exporter.page("/metrics")?.contains("tcptrace_build_info"));
        slowest = slowest.max(asked.elapsed());
    }
    // 400 connections, more than ten events each.
    wait_until("the events", Duration::from_secs(60), || events().is_ok_and(|now| now > before + 4000))?;
    // None waits for the silent, who are given twenty seconds for their request.
    ensure!(slowest < Duration::from_secs(15), "a scrape took {slowest:?} of {:?}", begun.elapsed());
    let health = exporter.health()?;
    ensure!(health["healthy"] == true && health["loss"]["ring_full"] == 0, "{health}");
    ensure!(web::get(exporter.addr, "/nothing", "")?.status == 404);
    let open_metrics = web::get(exporter.addr, "/metrics", "Accept: application/openmetrics-text\r\n")?;
    ensure!(open_metrics.body.ends_with("# EOF\n"));

    // The silent are still there, and it ends nevertheless.
    let begun = Instant::now();
    ensure!(exporter.stop()?.success());
    ensure!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    drop(silent);
    Ok(())
}

/// What the server says to that until it closes. It may close while it is spoken to.
fn say(addr: SocketAddr, words: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut said = Vec::new();
    if stream.write_all(words).and_then(|()| stream.shutdown(std::net::Shutdown::Write)).is_ok() {
        let _ = stream.read_to_end(&mut said);
    }
    Ok(said)
}
