//! `tcptrace serve` as it is deployed: with the capabilities of the unit and no more, and with bounded labels.

use std::ffi::CString;
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use tcptrace::sandbox::Sandbox;
use tcptrace::workload::Role;
use tests::binary;
use tests::clock::{sleep_ms, wait_until};
use tests::exporter::{Exporter, Traffic};
use tests::prometheus::deployed;
use tests::sockets::{Flavour, Meeting, read_eof};
use tests::spawn::nobody_with;
use tests::trial::live;
use tests::truth;

const PORT: u16 = 9435;
const SOON: Duration = Duration::from_secs(20);
const STARTED: &str = "tcptrace_time_wait_started_total";
const HELD: &str = "tcptrace_close_wait_sockets";

pub fn trials() -> Vec<Trial> {
    vec![
        live("serve_bounds_its_series_and_cleans_labels", bounded),
        live("serve_needs_no_more_than_the_units_capabilities", confined),
    ]
}

/// A task name as somebody may choose it who does not like exporters.
const HOSTILE: &[u8] = b"a\"}\n\\x\x1b[2J\xff 1";
/// The same as it must be shown: escaped for people, and the backslashes of that for Prometheus.
const SHOWN: &str = r#"a\"}\\x0a\\\\x\\x1b[2J\\xff 1"#;

/// Many who close first, few series: the named ones and the rest together are what the kernel counts.
fn bounded(sandbox: &Sandbox) -> Result<()> {
    const SERIES: usize = 3;
    const EACH: usize = 5;
    sandbox.set_sysctl("net.ipv4.tcp_tw_reuse", "0")?;
    let services = ["--port", "8080", "--max-series", "3"];
    let exporter = Exporter::start(sandbox, PORT, &services)?;
    let meeting = Meeting::on(Flavour::V4, 8080)?;
    let mut names = vec![HOSTILE.to_vec()];
    names.extend((0..7).map(|number| format!("closer-{number}").into_bytes()));
    for name in &names {
        // The task that closes is a thread of its own name.
        thread::scope(|scope| {
            let close = || -> Result<()> {
                rustix::thread::set_name(&CString::new(name.clone())?)?;
                for _ in 0..EACH {
                    let mut pair = meeting.pair()?;
                    drop(pair.client);
                    read_eof(&mut pair.server)?;
                }
                Ok(())
            };
            scope.spawn(close).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        // Names are looked up once a second at most: the first come first.
        if name == HOSTILE {
            wait_until("the first series", SOON, || {
                exporter.by_comm(STARTED).is_ok_and(|series| !series.is_empty())
            })?;
        }
    }
    let made = names.len() * EACH;
    let sum = |series: &[(String, f64)]| series.iter().map(|(_, count)| count).sum::<f64>();
    wait_until("every TIME_WAIT", SOON, || {
        exporter.by_comm(STARTED).is_ok_and(|series| sum(&series) >= made as f64)
    })?;
    sleep_ms(1500);
    let series = exporter.by_comm(STARTED)?;
    // Those of our own questions left out.
    let of_service = |socket: &truth::Socket| socket.is_mini() && socket.remote.port() == 8080;
    let counted = truth::sockets()?.iter().filter(|socket| of_service(socket)).count() as f64;
    ensure!(sum(&series) == made as f64 && counted == made as f64, "{series:?}, the kernel has {counted}");
    let (rest, named): (Vec<_>, Vec<_>) = series.iter().partition(|(comm, _)| comm == "other");
    ensure!(named.len() == SERIES && rest.len() == 1, "{series:?}");
    ensure!(named.iter().all(|(_, count)| *count == EACH as f64), "{series:?}");
    ensure!(named.iter().any(|(comm, _)| comm == SHOWN), "{series:?}");
    let text = exporter.page("/metrics")?;
    ensure!(text.bytes().all(|byte| byte == b'\n' || (b' '..0x7f).contains(&byte)), "{text:?}");
    ensure!(exporter.stop()?.success());
    Ok(())
}

/// As nobody, with what the unit gives and nothing else: it traces, and knows whose a socket is that is older than
/// it, in another namespace and of another user.
fn confined(_: &Sandbox) -> Result<()> {
    let unit = fs::read_to_string(deployed("systemd/tcptrace.service"))?;
    let capabilities =
        unit.lines().find_map(|line| line.strip_prefix("AmbientCapabilities=")).context("unit")?;
    let mut as_nobody = nobody_with(&capabilities.split_whitespace().collect::<Vec<_>>())?;
    as_nobody.push("--no-new-privs".to_owned());
    let as_nobody: Vec<_> = as_nobody.iter().map(String::as_str).collect();
    let other = Sandbox::new()?;
    // A namespace is found by a process that is in it.
    let _inhabitant = Traffic::start(&other, Role::Server, 8082, 1.0)?;
    let held = other.enter(|| -> Result<_> {
        let mut pair = Meeting::on(Flavour::V4, 8080)?.pair()?;
        drop(pair.client);
        read_eof(&mut pair.server)?;
        Ok(pair.server)
    })??;
    let (_dir, copy) = binary::copy_for_everybody()?;
    let exporter = Exporter::start_by(&as_nobody, &copy, &other, PORT, &[])?;
    let status = fs::read_to_string(format!("/proc/{}/status", exporter.pid()))?;
    ensure!(status.contains("\nUid:\t65534\t") && status.contains("\nNoNewPrivs:\t1"), "{status}");

    let own = fs::read_to_string("/proc/self/comm")?.trim_end().to_owned();
    wait_until("the holder's name", SOON, || {
        exporter.by_comm(HELD).is_ok_and(|series| series == [(own.clone(), 1.0)])
    })
    .with_context(|| format!("{:?}", exporter.by_comm(HELD)))?;
    other.enter(|| -> Result<()> {
        let mut pair = Meeting::on(Flavour::V4, 8081)?.pair()?;
        drop(pair.client);
        read_eof(&mut pair.server)
    })??;
    wait_until("the TIME_WAIT", SOON, || {
        exporter
            .by_comm(STARTED)
            .is_ok_and(|series| series.iter().any(|(comm, count)| comm != "?" && *count == 1.0))
    })
    .with_context(|| format!("{:?}", exporter.by_comm(STARTED)))?;
    drop(held);
    ensure!(exporter.stop()?.success());
    Ok(())
}
