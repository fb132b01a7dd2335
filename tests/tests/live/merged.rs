//! `report --from A --from B`: recordings of two hosts, which are two UTS and two network namespaces here.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;
use tcptrace::sandbox::Sandbox;
use tests::binary;
use tests::sockets::{Flavour, Meeting, Pair, read_eof};
use tests::traced::Traced;
use tests::trial::live;

/// Server and first client port on either host: their connections have the same addresses.
const SERVER: u16 = 7_070;
const CLIENTS: u16 = 40_000;

pub fn trials() -> Vec<Trial> {
    vec![live("recordings_of_two_hosts_put_together", two_hosts)]
}

/// A host by name: a thread that starts its recorder there.
fn recorder(sandbox: &Sandbox, host: &str, file: &Path) -> Result<Traced> {
    sandbox.enter(|| {
        // SAFETY: only this thread, which is about to end, and what it starts get another UTS namespace; nothing
        // that other threads share is unshared.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWUTS) }?;
        rustix::system::sethostname(host.as_bytes())?;
        let (netns, file) = (sandbox.netns().to_string(), file.to_string_lossy().into_owned());
        let traced = Traced::start(&["record", "--netns", &netns, "-o", &file])?;
        traced.wait_until_attached()?;
        Ok(traced)
    })?
}

/// Connections whose client closes first; the last `leaked` servers never close.
fn traffic(sandbox: &Sandbox, connections: u16, leaked: u16) -> Result<Vec<Pair>> {
    sandbox.enter(|| {
        let meeting = Meeting::on(Flavour::V4, SERVER)?;
        let mut kept = Vec::new();
        for number in 0..connections {
            let mut pair = meeting.pair_from(CLIENTS + number)?;
            pair.client.shutdown(std::net::Shutdown::Write)?;
            read_eof(&mut pair.server)?;
            if number >= connections - leaked {
                kept.push(pair);
            }
        }
        Ok(kept)
    })?
}

/// What `report --json` prints of recordings.
fn report(args: &[&str]) -> Result<Vec<Value>> {
    let output = Command::new(binary::path()).arg("report").args(args).arg("--json").output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{told}");
    let lines = String::from_utf8(output.stdout)?;
    lines.lines().map(|line| serde_json::from_str(line).context("JSON")).collect()
}

fn of<'a>(lines: &'a [Value], state: &str, host: Option<&str>) -> Result<&'a Value> {
    let fits = |line: &&Value| {
        line["type"] == "state_report"
            && line["state"] == state
            && line["key"].is_null()
            && line.get("host").and_then(Value::as_str) == host
    };
    lines.iter().find(fits).with_context(|| format!("no {state} of {host:?}"))
}

fn two_hosts(first: &Sandbox) -> Result<()> {
    let second = Sandbox::new()?;
    let dir = tempfile::tempdir()?;
    let (a, b) = (dir.path().join("a.jsonl"), dir.path().join("b.jsonl.zst"));
    let hosts = [(first, "alpha", &a, 6, 1), (&second, "beta", &b, 9, 2)];
    let recorders: Vec<_> = hosts
        .iter()
        .map(|(sandbox, host, file, _, _)| recorder(sandbox, host, file))
        .collect::<Result<_>>()?;
    let mut kept = Vec::new();
    for (sandbox, _, _, connections, leaked) in hosts {
        kept.push(traffic(sandbox, connections, leaked)?);
    }
    for recorder in recorders {
        stop(recorder)?;
    }
    drop(kept);

    let (a, b) = (a.to_string_lossy(), b.to_string_lossy());
    let singles = [report(&["--from", &a])?, report(&["--from", &b])?];
    let both = report(&["--from", &a, "--from", &b])?;
    for (state, figure, numbers) in [
        ("CLOSE_WAIT", "/open/count", [1, 2]),
        ("CLOSE_WAIT", "/finished/count", [5, 7]),
        ("CLOSE_WAIT", "/began", [6, 9]),
        ("LAST_ACK", "/finished/count", [5, 7]),
        ("FIN_WAIT1", "/finished/count", [6, 9]),
        ("TIME_WAIT", "/began", [5, 7]),
    ] {
        let value = |line: &Value| line.pointer(figure).and_then(Value::as_u64);
        for ((number, single), (_, host, ..)) in numbers.into_iter().zip(&singles).zip(hosts) {
            let alone = of(single, state, None)?;
            ensure!(value(alone) == Some(number), "{state} {figure} of {host}: {alone}");
            // The same figures, cell by cell, with the host's name to them.
            let mut among = of(&both, state, Some(host))?.clone();
            among.as_object_mut().context("object")?.remove("host");
            ensure!(among == *alone, "{state} of {host}: {among}, alone {alone}");
        }
        let sum = of(&both, state, None)?;
        ensure!(value(sum) == Some(numbers.iter().sum()), "{state} {figure} of both: {sum}");
    }
    let summaries = [&singles[0], &singles[1], &both].map(|lines| lines.last().cloned().unwrap_or_default());
    for figure in ["events", "connections", "time_waits"] {
        let [a, b, both] = summaries.each_ref().map(|summary| summary[figure].as_u64().unwrap_or(0));
        ensure!(a > 0 && b > 0 && a + b == both, "{figure}: {a} + {b} = {both}");
    }
    let parts = summaries[2]["parts"].as_array().context("parts")?;
    let hosts: Vec<_> = parts.iter().filter_map(|part| part["host"].as_str()).collect();
    ensure!(hosts.len() == 2 && hosts.contains(&"alpha") && hosts.contains(&"beta"), "{hosts:?}");
    let by_process = report(&["--from", &a, "--from", &b, "--by", "process", "--state", "CLOSE_WAIT"])?;
    let owners: Vec<_> = by_process.iter().filter(|line| !line["key"].is_null()).collect();
    // One process, this one, made all connections: it has one pid and is still two, one on each host.
    ensure!(owners.iter().all(|line| line["host"].is_string()) && owners.len() >= 2, "{owners:?}");

    let (page, logs) = (dir.path().join("report.html"), dir.path().join("logs"));
    report(&[
        "--from",
        &a,
        "--from",
        &b,
        "--html",
        &page.to_string_lossy(),
        "--hlog",
        &logs.to_string_lossy(),
    ])?;
    let page = std::fs::read_to_string(page)?;
    ensure!(page.contains(">alpha<") && page.contains(">beta<") && page.ends_with("</html>\n"), "{page}");
    let mut files: Vec<_> = std::fs::read_dir(logs)?.flatten().map(|entry| entry.file_name()).collect();
    files.sort();
    let expected = ["CLOSE_WAIT", "FIN_WAIT1", "LAST_ACK"];
    for name in expected.iter().flat_map(|state| [format!("{state}.hlog"), format!("{state}-by-host.hlog")]) {
        ensure!(files.iter().any(|file| *file == *name), "no {name} among {files:?}");
    }
    let refused = Command::new(binary::path()).args(["report", "--from", &a, "--from", &a]).output()?;
    let told = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(1) && told.contains("overlap in time"), "{told}");
    Ok(())
}

/// Ctrl-C, and waits until the recording has its end.
fn stop(recorder: Traced) -> Result<()> {
    // What has just happened waits in the ring for the reader's next tick, at most 100 ms away.
    std::thread::sleep(Duration::from_millis(150));
    recorder.signal(Signal::INT)?;
    recorder.exited(Duration::from_secs(20))
}
