//! `tcptrace run`: one command from its start to its end.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use tests::trial::live;
use tests::{binary, spawn};

pub fn trials() -> Vec<Trial> {
    vec![
        live("run_names_a_leak_and_fails", |_| leak(&[])),
        live("run_names_a_leak_in_a_network_of_its_own", |_| leak(&["--private-net"])),
        live("run_passes_input_output_and_status_through", |_| passes_through()),
        live("run_passes_sigterm_on", |_| forwards()),
    ]
}

/// A client whose server closes first; it forgets to close, or does so at once.
fn client(ends: &str) -> String {
    format!(
        "import socket, os, time\n\
         l = socket.create_server(('127.0.0.1', 0))\n\
         c = socket.create_connection(l.getsockname())\n\
         s, _ = l.accept()\n\
         s.close()\n\
         c.recv(1)\n{ends}"
    )
}

fn run(options: &[&str], command: &[&str]) -> Command {
    let mut run = Command::new(binary::path());
    run.arg("run").args(options).arg("--").args(command);
    run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    run
}

fn output(options: &[&str], command: &[&str]) -> Result<Output> {
    let child = spawn::start(&mut run(options, command))?;
    let cgroups = format!("tcptrace-run-{}", child.id());
    let output = child.wait_with_output()?;
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        ensure!(!Path::new(root).join(&cgroups).exists(), "a cgroup was left");
    }
    Ok(output)
}

fn leak(more: &[&str]) -> Result<()> {
    let program = client("time.sleep(1)\nos._exit(0)\n");
    let options = [&["--fail-on-leak", "--json"], more].concat();
    let output = output(&options, &["python3", "-c", &program])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(3), "{}: {stderr}", output.status);
    let line = stderr.lines().next().context("no report")?;
    let run: serde_json::Value = serde_json::from_str(line).with_context(|| stderr.to_string())?;
    ensure!(run["status"] == 0 && run["leaks"].as_array().is_some_and(|leaks| leaks.len() == 1), "{run}");
    let comm = run["leaks"][0]["process"]["comm"].as_str().unwrap_or_default();
    ensure!(comm.starts_with("python"), "{run}");
    let age = run["leaks"][0]["age_ns"].as_u64().unwrap_or(0);
    ensure!((900_000_000..10_000_000_000).contains(&age), "{run}");
    Ok(())
}

fn passes_through() -> Result<()> {
    let program = client("c.close()\nprint(input())\nos.sys.stdout.flush()\nos._exit(7)\n")
        .replace("import socket", "import sys, socket")
        .replace("os.sys", "sys");
    let mut child = spawn::start(&mut run(&["--fail-on-leak"], &["python3", "-c", &program]))?;
    child.stdin.take().context("no standard input")?.write_all(b"through\n")?;
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(7), "{}: {stderr}", output.status);
    ensure!(output.stdout == b"through\n", "{:?}", output.stdout);
    ensure!(stderr.contains("0 sockets leaked"), "{stderr}");
    Ok(())
}

fn forwards() -> Result<()> {
    let script = "trap 'echo told; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let mut child = spawn::start(&mut run(&[], &["sh", "-c", script]))?;
    let mut out = child.stdout.take().context("no standard output")?;
    let mut ready = [0; 6];
    out.read_exact(&mut ready)?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no pid")?;
    std::thread::sleep(Duration::from_millis(100));
    kill_process(pid, Signal::TERM)?;
    let output = child.wait_with_output()?;
    let mut told = String::new();
    out.read_to_string(&mut told)?;
    ensure!(told == "told\n" && output.status.code() == Some(9), "{told:?}, {}", output.status);
    Ok(())
}
