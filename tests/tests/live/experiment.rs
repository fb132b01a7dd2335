//! `experiment`: what it finds in a sandbox, and what it leaves when it is told to end.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use tcptrace::sandbox::Sandbox;
use tests::trial::live;
use tests::{binary, spawn};

pub fn trials() -> Vec<Trial> {
    vec![
        live("experiment_finds_what_tcp_fin_timeout_does", fin_timeout),
        live("experiment_that_is_told_to_end_restores", told_to_end),
    ]
}

const FIN_TIMEOUT: &str = "net.ipv4.tcp_fin_timeout";

fn fin_timeout(sandbox: &Sandbox) -> Result<()> {
    let mut command = Command::new(binary::path());
    command.args(["experiment", "--sandbox", "--json", "--set"]).arg(format!("{FIN_TIMEOUT}=2"));
    // Shorter than a TIME_WAIT: of those none can end.
    command.args(["--baseline", "4", "-d", "5s", "--drain", "8s", "--workload", "mixed", "--rate", "60"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = spawn::start(&mut command)?.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    let lines = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let lines: Vec<Value> = lines.map(serde_json::from_slice).collect::<Result<_, _>>()?;
    let effect = |state: &str, phase: Option<&str>| {
        let is_it = |line: &&Value| {
            line["type"] == "effect"
                && line["state"] == state
                && line["phase"].as_str() == phase
                && line["metric"] == "p50_ns"
        };
        lines.iter().find(is_it).with_context(|| format!("nothing about {state}"))
    };
    let orphaned = effect("FIN_WAIT2", Some("orphaned"))?;
    ensure!(orphaned["sysctl"] == FIN_TIMEOUT && orphaned["changed"] == true, "{orphaned}");
    ensure!(orphaned["before"] == "4" && orphaned["after"] == "2", "{orphaned}");
    // The timer wheel is late by an eighth at most, and rounds up by a jiffy or two.
    for (side, seconds) in [("a", 4.0), ("b", 2.0)] {
        let measured = orphaned[side].as_f64().context("a median")? / 1e9;
        ensure!((seconds..seconds * 1.125 + 0.2).contains(&measured), "{side}: {measured} s");
    }
    let interval = &orphaned["difference_ci95_ns"];
    let (low, high) = (interval[0].as_i64().context("low")?, interval[1].as_i64().context("high")?);
    let difference = orphaned["b"].as_f64().context("b")? - orphaned["a"].as_f64().context("a")?;
    ensure!(low as f64 <= difference && difference <= high as f64 && high < 0, "{orphaned}");

    let time_wait = effect("TIME_WAIT", None)?;
    ensure!(time_wait["changed"].is_null() && time_wait["a"].is_null(), "{time_wait}");
    let sentence = time_wait["detail"].as_str().context("a sentence")?;
    ensure!(sentence.contains("not enough data to tell"), "{sentence}");
    // It has a namespace of its own, and this one is not it.
    ensure!(sandbox.sysctl(FIN_TIMEOUT)? == "60", "{}", sandbox.sysctl(FIN_TIMEOUT)?);
    ensure!(tests::truth::sockets()?.is_empty(), "its traffic is in our namespace");
    Ok(())
}

/// In a mount namespace with a /run of its own: a journal on the host would stop others' experiments.
const TOLD: &str = r#"
mount -t tmpfs tmpfs /run
value() { cat /proc/sys/net/ipv4/tcp_fin_timeout; }
"$0" experiment --set net.ipv4.tcp_fin_timeout=10 --baseline 20 --settle 0s -d 6s >/run/found 2>/run/said &
experiment=$!
tries=0
while [ "$(value)" != 10 ] && [ "$tries" -lt 600 ]; do sleep 0.1; tries=$((tries + 1)); done
echo "journals $(ls /run/tcptrace | wc -l)"
echo "changed $(value)"
kill -TERM "$experiment"
status=0
wait "$experiment" || status=$?
echo "status $status"
echo "restored $(value)"
echo "journals $(ls /run/tcptrace | wc -l)"
grep '^restored ' /run/said
"$0" experiment --restore
"#;

fn told_to_end(_: &Sandbox) -> Result<()> {
    let Some(child) = spawn::with_own_mounts::<&str>(TOLD, &[])? else { return Ok(()) };
    let output = child.wait_with_output()?;
    let told = String::from_utf8(output.stdout)?;
    let wanted = "journals 1\nchanged 10\nstatus 0\nrestored 60\njournals 0\n\
                  restored net.ipv4.tcp_fin_timeout = 60\n\
                  no experiment has left anything changed\n";
    ensure!(told == wanted, "{told}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
