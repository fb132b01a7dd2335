//! `tcptrace demo`: what a newcomer runs first.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use rustix::process::Signal;
use tcptrace::sandbox::Sandbox;
use tests::clock::wait_until;
use tests::expect::{timer_ns, within};
use tests::traced::Traced;
use tests::trial::live;

pub fn trials() -> Vec<Trial> {
    vec![
        live("demo_report_shows_orphans_leaks_and_half_closed", report),
        live("demo_leaves_nothing_behind", |_| leaves_nothing(Signal::INT)),
        live("demo_leaves_nothing_behind_after_sigkill", |_| leaves_nothing(Signal::KILL)),
    ]
}

fn report(_: &Sandbox) -> Result<()> {
    let host = fs::read_to_string("/proc/sys/net/ipv4/tcp_fin_timeout")?;
    let run = Traced::start(&["demo", "--fin-timeout", "2", "report", "--json", "--duration", "8s"])?
        .ended(Duration::from_secs(60))?;
    ensure!(
        fs::read_to_string("/proc/sys/net/ipv4/tcp_fin_timeout")? == host,
        "a sysctl of the host changed"
    );
    let orphaned = run.report("FIN_WAIT2", Some("orphaned"))?;
    within("orphaned FIN_WAIT2", orphaned["survival"]["p50_ns"].as_u64().unwrap_or(0), &{
        let wheel = timer_ns(2)?;
        wheel.start() - wheel.start() / 1000..=wheel.end() + wheel.end() / 1000
    })?;
    let half_closed = run.report("FIN_WAIT2", Some("half_closed"))?;
    ensure!(half_closed["finished"]["count"].as_u64() > Some(0), "{half_closed}");
    let close_wait = run.report("CLOSE_WAIT", None)?;
    ensure!(close_wait["open"]["count"].as_u64() > Some(3), "no leak: {close_wait}");
    let time_wait = run.report("TIME_WAIT", None)?;
    ensure!(time_wait["open"]["count"].as_u64() > Some(50), "{time_wait}");
    Ok(())
}

/// Every process of the demonstration ends with it, however it ends.
fn leaves_nothing(signal: Signal) -> Result<()> {
    let demo = Traced::start(&["demo", "watch", "--json"])?;
    let mut processes = BTreeSet::new();
    wait_until("the demonstration's processes", Duration::from_secs(60), || {
        processes = descendants(demo.pid());
        processes.len() >= 11 && !demo.transitions().is_empty()
    })?;
    demo.signal(signal)?;
    wait_until("the end of the demonstration's processes", Duration::from_secs(60), || {
        processes.iter().all(|&pid| !is_alive(pid))
    })
}

/// Children of `root`, and theirs.
fn descendants(root: u32) -> BTreeSet<u32> {
    let parents: Vec<_> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let mut found = BTreeSet::from([root]);
    loop {
        let more: Vec<_> =
            parents.iter().filter(|(_, parent)| found.contains(parent)).map(|(pid, _)| *pid).collect();
        let before = found.len();
        found.extend(more);
        if found.len() == before {
            found.remove(&root);
            return found;
        }
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
}

/// A zombie is not alive.
fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit(") ").next().map(|rest| !rest.starts_with(['Z', 'X'])))
        .unwrap_or(false)
}
