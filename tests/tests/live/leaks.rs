//! `leaks` against programs that know what they have leaked.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use tcptrace::event::Protocol::Mptcp;
use tcptrace::inventory::diag::{Query, list_here};
use tcptrace::net::State;
use tcptrace::sandbox::Sandbox;
use tcptrace::views::json::Time;
use tests::clock::{now_ns, sleep_ms, wait_until};
use tests::leaker::{Expectation, Language, Leaker};
use tests::spawn::NOBODY;
use tests::traced::{REQUIRED_HOOKS, Traced};
use tests::trial::live;
use tests::truth::attached;
use tests::{binary, spawn};

pub fn trials() -> Vec<Trial> {
    vec![
        live("leaks_at_once_equal_what_the_programs_know", at_once),
        live("leaks_of_a_trace_have_exact_ages_and_growth", traced),
        live("leaks_name_the_code_in_c_node_and_rust", stacks),
        live("leaks_exit_statuses_and_names_that_do_not_exist", statuses),
        live("leaks_of_an_ordinary_user_are_their_own_and_say_so", as_ordinary_user),
        live("leaks_note_what_vanishes_while_watched", vanishing),
        live("leaks_from_a_recording", recorded),
        live("leaks_of_mptcp_are_seen_once", mptcp),
    ]
}

/// What `tcptrace leaks` says at once: its lines, its standard error, its status.
fn leaks(args: &[&str]) -> Result<(Vec<Value>, String, Option<i32>)> {
    run(Command::new(binary::path()).arg("leaks").args(args))
}

fn run(command: &mut Command) -> Result<(Vec<Value>, String, Option<i32>)> {
    let output = command.output()?;
    let stderr = String::from_utf8(output.stderr)?;
    let lines = String::from_utf8(output.stdout)?;
    let lines = lines.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned()));
    Ok((lines.collect::<Result<_>>()?, stderr, output.status.code()))
}

/// Three languages, two namespaces, every kind of leak; and sockets that are well or too young.
fn at_once(sandbox: &Sandbox) -> Result<()> {
    let other = Sandbox::new()?;
    let mut expected = Expectation::default();
    let mut programs = Vec::new();
    for (namespace, language) in
        [(sandbox, Language::C), (&other, Language::C), (sandbox, Language::Python), (&other, Language::Node)]
    {
        if !language.is_here() {
            continue;
        }
        let mut program = namespace.enter(|| Leaker::start(language, &[]))??;
        let kinds: &[&str] = match language {
            Language::C => {
                &["consumed 5", "unread 3", "data 2", "unaccepted 4", "forked 2", "flight 1", "consumed 1"]
            }
            Language::Python => &["consumed 4", "unread 2", "data 3", "unaccepted 1", "forked 2"],
            Language::Node => &["consumed 3", "unread 4", "data 1"],
        };
        for command in kinds {
            expected.add(namespace.netns(), &program.leak(command)?);
        }
        programs.push((language, program));
    }
    ensure!(!programs.is_empty(), "nothing to test with");
    // Older than the limit, by what the kernel alone can say; then some that are not, and some that are well.
    sleep_ms(8100);
    for (language, program) in &mut programs {
        program.leak("consumed 2")?;
        if *language == Language::C {
            program.tell("open 3")?;
        }
    }
    let netns = format!("{},{}", sandbox.netns(), other.netns());
    let (lines, stderr, status) = leaks(&["--json", "--min-age", "8s", "--netns", &netns])?;
    ensure!(status == Some(0) && stderr.is_empty(), "{stderr}");
    expected.check(&lines)?;
    let total = lines.last().context("no line")?;
    ensure!(total["young"].as_u64() == Some(2 * programs.len() as u64), "{total}");
    for leak in lines.iter().filter(|line| line["type"] == "leak") {
        ensure!(leak["growth_per_min"].is_null() && leak["oldest_is_lower_bound"] == true, "{leak}");
        ensure!(leak["oldest_ns"].as_u64() >= Some(8_000_000_000), "{leak}");
    }
    Ok(())
}

/// `leaks --follow` with a report every second, once the first has come.
fn follow(netns: &str) -> Result<Traced> {
    let args = ["leaks", "--json", "--netns", netns, "--min-age", "1s", "--follow", "--interval", "1s"];
    let tracer = Traced::start(&args)?;
    wait_until("the first report", Duration::from_secs(60), || {
        tracer.lines().iter().any(|line| line["type"] == "leak_total")
    })?;
    Ok(tracer)
}

/// Ages lie between the brackets of those who know them; arrivals and departures add up to the growth.
fn traced(sandbox: &Sandbox) -> Result<()> {
    let netns = sandbox.netns().to_string();
    let mut program = Leaker::start(Language::C, &[])?;
    let older = program.leak("consumed 4")?;
    sleep_ms(1200);
    let tracer = follow(&netns)?;
    sleep_ms(300);
    let mut expected = Expectation::default();
    let mut newer = Vec::new();
    for _ in 0..4 {
        newer.push(program.leak("consumed 3")?);
        newer.push(program.leak("unread 1")?);
        sleep_ms(700);
    }
    newer.push(program.leak("forked 1")?);
    program.tell("close 2")?;
    sleep_ms(1500);
    let young = program.leak("data 2")?;
    let stopping = now_ns();
    let run = tracer.finish_lossy()?;
    let ended = now_ns();
    for truth in newer.iter().chain([&older]) {
        expected.add(sandbox.netns(), truth);
    }
    older.sockets[..2].iter().for_each(|socket| expected.remove(socket.local, socket.remote));
    // The last report stands behind the others.
    let totals: Vec<_> = positions(&run.lines, "leak_total");
    let last = &run.lines[totals[totals.len() - 2] + 1..];
    expected.check(last)?;
    let leak = of_pid(last, program.pid())?;
    for truth in &newer {
        for socket in &truth.sockets {
            let line = connection(leak, socket.local, socket.remote)?;
            let age = line["age_ns"].as_u64().context("age")?;
            // The last look was taken after it was told to stop.
            let possible = stopping - truth.before_ns..=ended - truth.after_ns;
            // What was lost on a busy machine makes a lower bound.
            let is_exact = line["age_is_lower_bound"] == false || !run.is_lossless();
            ensure!(is_exact && possible.contains(&age), "{line} not in {possible:?}");
        }
    }
    let old = connection(leak, older.sockets[3].local, older.sockets[3].remote)?;
    ensure!(old["age_is_lower_bound"] == true && old["age_ns"].as_u64() > Some(2_500_000_000), "{old}");
    ensure!(last.iter().all(|line| !line.to_string().contains(&young.sockets[0].remote.to_string())));
    // 17 came and stayed, 2 went: per minute of what there was of them between the first look and the last.
    let watched = seconds_between(&run.lines[totals[0]], last.last().context("no line")?)?;
    let growth = leak["growth_per_min"].as_f64().context("no growth")?;
    let expected = 17.0 * 60.0 / (watched - 1.0) - 2.0 * 60.0 / watched;
    ensure!((growth - expected).abs() < 0.01 || !run.is_lossless(), "{growth} a minute, expected {expected}");
    let fds = &leak["fds"];
    let left = fds["limit"].as_f64().context("limit")? - fds["open"].as_f64().context("open")?;
    let exhausted = fds["exhausted_in_s"].as_f64().context("exhausted_in_s")?;
    ensure!((exhausted - left / growth * 60.0).abs() <= 1.0, "{fds}");
    Ok(())
}

fn seconds_between(first: &Value, last: &Value) -> Result<f64> {
    let at = |line: &Value| {
        let time: Time = serde_json::from_value(line["time"].clone()).with_context(|| line.to_string())?;
        Ok::<_, anyhow::Error>(time.0.as_nanosecond())
    };
    Ok((at(last)? - at(first)?) as f64 / 1e9)
}

fn positions(lines: &[Value], kind: &str) -> Vec<usize> {
    (0..lines.len()).filter(|&at| lines[at]["type"] == kind).collect()
}

fn of_pid(lines: &[Value], pid: u32) -> Result<&Value> {
    let of = |line: &&Value| line["type"] == "leak" && line["process"]["pid"] == pid;
    lines.iter().find(of).with_context(|| format!("no leak of {pid} in {lines:#?}"))
}

fn connection(leak: &Value, local: SocketAddr, remote: SocketAddr) -> Result<&Value> {
    let all = leak["connections"].as_array().context("connections")?;
    let is_it = |line: &&Value| line["local"] == local.to_string() && line["remote"] == remote.to_string();
    all.iter().find(is_it).with_context(|| format!("no {remote} in {leak}"))
}

/// The function and the line that were told EOF.
fn stacks(sandbox: &Sandbox) -> Result<()> {
    let netns = sandbox.netns().to_string();
    let mut programs = Vec::new();
    for language in [Language::C, Language::Node] {
        if language.is_here() {
            programs.push((language, Leaker::start(language, &[])?));
        }
    }
    let tracer = Traced::start(&[
        "leaks",
        "--json",
        "--netns",
        &netns,
        "--min-age",
        "500ms",
        "--stacks",
        "--follow",
        "--interval",
        "1s",
    ])?;
    wait_until("the first report", Duration::from_secs(60), || {
        tracer.lines().iter().any(|line| line["type"] == "leak_total")
    })?;
    for (_, program) in &mut programs {
        program.leak("consumed 3")?;
        program.leak("unread 2")?;
    }
    for (language, program) in &mut programs {
        // Node reads the end itself; what it writes, it writes from functions of the application.
        if *language == Language::Node {
            program.leak("greeted 2")?;
            program.leak("replied 3")?;
        }
    }
    let is_named = |(language, program): &(Language, Leaker)| {
        let last = tracer.lines().into_iter().rfind(|line| line["process"]["pid"] == program.pid());
        last.is_some_and(|leak| told_eof(*language, &leak) == consumed(*language))
    };
    wait_until("the code of every leak", Duration::from_secs(60), || programs.iter().all(is_named))?;
    let run = tracer.finish_lossy()?;
    for (language, program) in &programs {
        let at = run.lines.iter().rposition(|line| line["process"]["pid"] == program.pid());
        let leak = &run.lines[at.context("not reported")?];
        let sites = leak["sites"].as_array().context("sites")?;
        ensure!(told_eof(*language, leak) == consumed(*language), "{language:?}: {sites:#?}");
        if *language == Language::Node {
            writers(leak)?;
        }
    }
    // The demonstration is this project's own Rust.
    let demo =
        ["demo", "--rate", "200", "leaks", "--json", "--duration", "6s", "--min-age", "1s", "--stacks"];
    let run = Traced::start(&demo)?.ended_lossy(Duration::from_secs(60))?;
    let leaky = run.lines.iter().find(|line| line["process"]["comm"] == "demo-leaky").context("no leak")?;
    let frame = leaky["sites"][0]["frames"][0].as_str().context("no frame")?;
    ensure!(frame.contains("echo_and_forget_to_close at workload/leaky.rs:"), "{frame}");
    for kind in ["eof_consumed", "eof_unread", "data_unread"] {
        ensure!(leaky["kinds"][kind].as_u64() > Some(0), "{leaky}");
    }
    ensure!(leaky["shared_with"].as_array().is_some_and(|with| with.len() == 1), "{leaky}");
    Ok(())
}

/// The functions that wrote to the sockets, where this kernel tells of sends (6.5).
fn writers(leak: &Value) -> Result<()> {
    let sites = leak["sent_at"].as_array().context("sent_at")?;
    for (function, sockets) in [("greetAndForget", 2), ("replyAndForget", 3)] {
        let is_it = |site: &&Value| {
            site["frames"][0].as_str().is_some_and(|frame| {
                frame.starts_with(&format!("{function} at ")) && frame.contains("leaker.js:")
            })
        };
        let site = sites.iter().find(is_it).with_context(|| format!("no {function} in {sites:#?}"))?;
        ensure!(site["sockets"] == sockets, "{site}");
    }
    Ok(())
}

fn statuses(sandbox: &Sandbox) -> Result<()> {
    let netns = sandbox.netns().to_string();
    let clean = ["--json", "--fail-on-leak", "--min-age", "0s", "--netns", &netns];
    let (lines, _, status) = leaks(&clean)?;
    ensure!(status == Some(0) && lines.len() == 1 && lines[0]["sockets"] == 0, "{status:?} {lines:?}");
    let text = Command::new(binary::path()).args(["leaks", "--netns", &netns]).output()?;
    ensure!(text.stdout.starts_with(b"No leak"), "{}", String::from_utf8_lossy(&text.stdout));

    let mut program = Leaker::start(Language::C, &[])?;
    program.leak("consumed 1")?;
    let (lines, _, status) = leaks(&clean)?;
    ensure!(status == Some(3) && lines[0]["type"] == "leak", "{status:?} {lines:?}");
    let (_, _, status) = leaks(&["--json", "--netns", &netns, "--min-age", "0s"])?;
    ensure!(status == Some(0), "a leak is no failure unless asked: {status:?}");
    for (filter, sockets) in [
        (["--pid", &program.pid().to_string()], 1),
        (["--pid", &std::process::id().to_string()], 0),
        (["--comm", "leaker*"], 1),
        (["--comm", "nginx"], 0),
        (["--port", "1"], 0),
        (["--addr", "10.0.0.0/8"], 0),
        (["--addr", "127.0.0.0/8"], 1),
    ] {
        let (lines, _, _) = leaks(&[&clean[..], &filter].concat())?;
        ensure!(lines.last().is_some_and(|total| total["sockets"] == sockets), "{filter:?}: {lines:?}");
    }
    for (args, named) in [
        (["--pid", "4194303"], "4194303"),
        (["--netns", "no-such-namespace"], "no-such-namespace"),
        (["--container", "ffffffffffff"], "ffffffffffff"),
        (["--state", "TIME_WAIT"], "TIME_WAIT"),
    ] {
        let (_, stderr, status) = leaks(&args)?;
        ensure!(status == Some(2) && stderr.contains(named), "{args:?}: {status:?} {stderr}");
    }
    Ok(())
}

/// Without privileges: own processes in full, of others that there is something that cannot be seen.
fn as_ordinary_user(sandbox: &Sandbox) -> Result<()> {
    let (_dir, program) = binary::copy_for_everybody()?;
    let mut expected = Expectation::default();
    let mut own = Leaker::start_as(Language::Python, NOBODY)?;
    for command in ["consumed 2", "unread 1", "unaccepted 1"] {
        expected.add(sandbox.netns(), &own.leak(command)?);
    }
    let mut foreign = Leaker::start(Language::C, &[])?;
    foreign.leak("consumed 2")?;
    let (lines, stderr, status) = run(Command::new(&program)
        .args(["leaks", "--json", "--min-age", "0s"])
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY))?;
    ensure!(status == Some(0), "{status:?} {stderr}");
    let leak = of_pid(&lines, own.pid())?;
    ensure!(leak["sockets"] == 4 && leak["eof"]["consumed"] == 2 && leak["not_accepted"] == 1, "{leak}");
    let unseen = lines.iter().find(|line| line["kinds"]["unseen"] == 2 && line["process"].is_null());
    ensure!(unseen.is_some(), "{lines:#?}");
    let notes = lines.last().context("no line")?["notes"].to_string();
    ensure!(notes.contains("descriptors of") && notes.contains("CAP_SYS_PTRACE"), "{notes}");
    Ok(())
}

/// What was there at the start and is not at the end.
fn vanishing(_: &Sandbox) -> Result<()> {
    let gone = Sandbox::new()?;
    let mut program = gone.enter(|| Leaker::start(Language::C, &[]))??;
    program.leak("consumed 1")?;
    let pid = program.pid().to_string();
    let netns = gone.netns().to_string();
    let args = [
        "leaks",
        "--json",
        "--min-age",
        "0s",
        "--netns",
        &netns,
        "--pid",
        &pid,
        "--follow",
        "--interval",
        "1s",
    ];
    let tracer = Traced::start(&args)?;
    wait_until("the leak", Duration::from_secs(60), || {
        tracer.lines().iter().any(|line| line["type"] == "leak")
    })?;
    drop(program);
    drop(gone);
    // The namespace goes after the process, in the kernel's own time: a look may fall between the two.
    let both_are_noted = |line: &Value| {
        let notes = line["notes"].to_string();
        notes.contains(&format!("process {pid} is no longer there"))
            && notes.contains(&format!("network namespace {netns} is no longer there"))
    };
    wait_until("the end of the leak, noted", Duration::from_secs(60), || {
        tracer
            .lines()
            .last()
            .is_some_and(|line| line["type"] == "leak_total" && line["sockets"] == 0 && both_are_noted(line))
    })?;
    tracer.signal(Signal::TERM)?;
    let run = tracer.ended_lossy(Duration::from_secs(60))?;
    let total = run.lines.last().context("no line")?;
    ensure!(both_are_noted(total), "{total}");
    Ok(())
}

/// The same leaks from a recording, with what a recording can know.
fn recorded(sandbox: &Sandbox) -> Result<()> {
    let netns = sandbox.netns().to_string();
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("leaks.jsonl.zst");
    let file = file.to_str().context("path")?;
    let mut program = Leaker::start(Language::C, &[])?;
    program.leak("consumed 2")?;
    sleep_ms(1100);
    let mut command = Command::new(binary::path());
    command.args(["record", "-o", file, "--netns", &netns]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut recorder = spawn::start(&mut command)?;
    let pid = recorder.id();
    wait_until("attached programs", Duration::from_secs(60), || attached(pid) >= REQUIRED_HOOKS)?;
    // Mostly enough for the first dump.
    sleep_ms(2000);
    program.leak("unread 3")?;
    sleep_ms(3000);
    kill_process(Pid::from_child(&recorder), Signal::INT)?;
    ensure!(recorder.wait()?.success());
    let (lines, _, status) = leaks(&["--json", "--from", file, "--min-age", "500ms", "--fail-on-leak"])?;
    ensure!(status == Some(3), "{status:?} {lines:#?}");
    let leak = of_pid(&lines, program.pid())?;
    ensure!(leak["sockets"] == 5 && leak["process"]["comm"].as_str().is_some(), "{leak}");
    // Where the dump was late it has seen the others, too, and what is in their queues.
    let eof = |what: &str| leak["eof"][what].as_u64().unwrap_or(0);
    ensure!(eof("consumed") == 2 && eof("unknown") + eof("unread") == 3, "{leak}");
    ensure!(leak["fds"].is_null(), "a recording knows nothing of descriptors: {leak}");
    Ok(())
}

/// While the application holds it only the MPTCP socket is in CLOSE_WAIT; its subflows are not.
fn mptcp(sandbox: &Sandbox) -> Result<()> {
    if !std::path::Path::new("/proc/sys/net/mptcp").exists() {
        println!("SKIPPED: this kernel speaks no MPTCP");
        return Ok(());
    }
    let netns = sandbox.netns().to_string();
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP));
    let listener = socket()?;
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    listener.listen(8)?;
    let addr = listener.local_addr()?;
    let connect = || {
        let client = socket()?;
        client.connect(&addr)?;
        Ok::<_, std::io::Error>(client)
    };
    let mut held = Vec::new();
    let old = connect()?;
    held.push(listener.accept()?.0);
    drop(old);
    sleep_ms(1200);
    let tracer = follow(&netns)?;
    for _ in 0..2 {
        let client = connect()?;
        held.push(listener.accept()?.0);
        drop(client);
    }
    // MPTCP's worker takes DATA_FIN in when it comes to it.
    wait_until("three in CLOSE_WAIT", Duration::from_secs(20), || {
        let (mut sockets, mut notes) = (Vec::new(), Vec::new());
        let listed = list_here(sandbox.netns(), Query::from(State::CloseWait), &mut sockets, &mut notes);
        listed.is_ok() && sockets.iter().filter(|socket| socket.protocol == Mptcp).count() == 3
    })?;
    let after = now_ns();
    sleep_ms(1500);
    let stopping = now_ns();
    let run = tracer.finish_lossy()?;
    let leak = run.lines.iter().rfind(|line| line["type"] == "leak").context("no leak")?;
    ensure!(leak["sockets"] == 3 && leak["process"]["pid"] == std::process::id(), "{leak}");
    let fds: BTreeSet<_> = held.iter().map(|socket| i64::from(socket.as_raw_fd())).collect();
    let connections = leak["connections"].as_array().context("connections")?;
    let reported: BTreeSet<_> = connections.iter().filter_map(|line| line["fd"].as_i64()).collect();
    ensure!(fds == reported, "{fds:?} {leak}");
    let exact: Vec<_> = connections.iter().filter(|line| line["age_is_lower_bound"] == false).collect();
    ensure!(exact.len() == 2 || !run.is_lossless(), "{leak}");
    for line in exact {
        ensure!(line["age_ns"].as_u64() >= Some(stopping - after), "{line}");
    }
    // What was read of them the kernel does not tell.
    ensure!(leak["eof"]["unknown"] == 3 && leak["kinds"]["held"] == 3, "{leak}");
    Ok(())
}

/// How many sockets of each program in [`stacks`] were told EOF.
fn consumed(language: Language) -> u64 {
    if language == Language::Node { 8 } else { 3 }
}

/// How many of them a leak names the code of, or says why it cannot.
fn told_eof(language: Language, leak: &Value) -> u64 {
    let is_it = |site: &&Value| match language {
        Language::C => site["frames"][0].as_str().is_some_and(|frame| {
            let line = language.eof_line().unwrap_or(0);
            frame.starts_with("read_to_the_end_and_forget at ")
                && frame.ends_with(&format!("leaker.c:{line}"))
        }),
        _ => site["frames"].to_string().contains("toldEof") || site["note"].is_string(),
    };
    let sites = leak["sites"].as_array();
    sites.into_iter().flatten().filter(is_it).filter_map(|site| site["sockets"].as_u64()).sum()
}
