//! `record`: what is in the file after a kill and on a full disk, and that a replay says what was said live.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;
use tcptrace::commands::source::{Source, Wanted};
use tcptrace::engine::{Engine, Input};
use tcptrace::event::Event;
use tcptrace::filter::{Detail, Filter, Netns, StateSet};
use tcptrace::live::{self, Handler};
use tcptrace::net::State;
use tcptrace::recording::{self, Session};
use tcptrace::sandbox::Sandbox;
use tcptrace::settings::Tracing;
use tcptrace::views::json;
use tests::clock::{sleep_ms, wait_until};
use tests::sockets::{Flavour, Meeting, read_eof};
use tests::traced::Traced;
use tests::trial::live;
use tests::{binary, spawn, truth};

pub fn trials() -> Vec<Trial> {
    vec![
        live("recording_of_a_killed_recorder_is_whole_up_to_the_last_second", killed),
        live("recording_on_a_full_disk_is_readable", full_disk),
        live("recording_replayed_says_what_was_said_live", replayed),
    ]
}

/// For anything that happens at once on an idle machine.
const AT_ONCE: Duration = Duration::from_secs(20);

fn run(args: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary::path());
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(spawn::start(&mut command)?.wait_with_output()?)
}

/// A connection that ends in good order, its client first; the client's port.
fn connection(meeting: &Meeting) -> Result<u16> {
    let mut pair = meeting.pair()?;
    drop(pair.client);
    read_eof(&mut pair.server)?;
    Ok(pair.client_addr.port())
}

/// Ports of the clients whose end the recording tells, and what is said about its end.
fn told(path: &Path) -> Result<(Vec<u16>, String)> {
    let path = path.to_str().context("UTF-8")?;
    let output = run(&["watch", "--from", path, "--json"])?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {stderr}", output.status);
    let mut ports = Vec::new();
    for line in output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let line: Value = serde_json::from_slice(line)?;
        if line["from"] == "FIN_WAIT2" && line["to"] == "TIME_WAIT" {
            let local = line["local"].as_str().context("local")?;
            ports.push(local.rsplit_once(':').context("a port")?.1.parse()?);
        }
    }
    Ok((ports, stderr))
}

fn killed(_: &Sandbox) -> Result<()> {
    let directory = tempfile::tempdir()?;
    // By this task, the only one in the namespace, which nobody who reads the recording knows.
    let netns = rustix::thread::gettid().as_raw_nonzero().to_string();
    let meeting = Meeting::new(Flavour::V4)?;
    let mut running = Vec::new();
    for name in ["killed.jsonl", "killed.jsonl.zst"] {
        let path = directory.path().join(name);
        let shown = path.to_str().context("UTF-8")?;
        let recorder = Traced::start(&["record", "--output", shown, "--netns", &netns])?;
        recorder.wait_until_attached()?;
        running.push((path, recorder));
    }
    let early: Vec<u16> = (0..50).map(|_| connection(&meeting)).collect::<Result<_>>()?;
    let mut made = early.clone();
    for (path, recorder) in running {
        // Nobody asks it to write: it does so by itself, and a reader may read along.
        let mut seen = Vec::new();
        wait_until("the first connections in the file", AT_ONCE, || {
            seen = told(&path).map(|(ports, _)| ports).unwrap_or_default();
            early.iter().all(|port| seen.contains(port))
        })
        .with_context(|| format!("{} of {} in {}", seen.len(), early.len(), path.display()))?;
        for _ in 0..50 {
            made.push(connection(&meeting)?);
        }
        recorder.signal(Signal::KILL)?;
        drop(recorder);
        let (ports, said) = told(&path)?;
        ensure!(early.iter().all(|port| ports.contains(port)), "{ports:?} of {early:?}");
        ensure!(ports.iter().all(|port| made.contains(port)), "{ports:?} of {made:?}");
        ensure!(said.contains("has no end (its recorder was killed"), "no note of the end in {said:?}");
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let whole = fs::read(&path)?.iter().filter(|&&byte| byte == b'\n').count();
            ensure!(said.contains(&format!("all of its {whole} whole lines were used")), "{whole}: {said}");
        }
    }
    Ok(())
}

/// In a mount namespace of its own. The arguments: a directory to mount at, a namespace, the recording's name.
const FULL: &str = r#"
mount -t tmpfs -o size=64k tmpfs "$1"
file="$1/$3"
status=0
"$0" record -o "$file" --netns "$2" -d 60s 2>"$1.said" || status=$?
echo "$status"
wc -c <"$file"
wc -l <"$file"
"$0" report --from "$file" --json 2>"$1.note" | tail -n 1
"#;

fn full_disk(sandbox: &Sandbox) -> Result<()> {
    fills_the_disk(sandbox, "full.jsonl")?;
    fills_the_disk(sandbox, "full.jsonl.zst")
}

fn fills_the_disk(sandbox: &Sandbox, name: &str) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mount = directory.path().join("small");
    fs::create_dir(&mount)?;
    let netns = sandbox.netns().to_string();
    let args = [mount.as_os_str(), netns.as_ref(), name.as_ref()];
    let Some(mut child) = spawn::with_own_mounts(FULL, &args)? else { return Ok(()) };
    let meeting = Meeting::new(Flavour::V4)?;
    let mut made = 0_u64;
    let is_plain = name == "full.jsonl";
    // Enough to fill it many times over, but a tenth of it is what remains when compressed; then it may take its time.
    let (most, pause_ms) = if is_plain { (5_000, 5) } else { (50_000, 0) };
    while child.try_wait()?.is_none() {
        if made < most {
            connection(&meeting)?;
            made += 1;
        }
        sleep_ms(pause_ms);
    }
    let output = child.wait_with_output()?;
    let told = String::from_utf8(output.stdout)?;
    let said = fs::read_to_string(mount.with_extension("said"))?;
    let note = fs::read_to_string(mount.with_extension("note"))?;
    let lines: Vec<_> = told.lines().map(str::trim).collect();
    let [status, bytes, whole, summary] = lines[..] else {
        anyhow::bail!("{told}{said}{note}{}", String::from_utf8_lossy(&output.stderr))
    };
    // The last block of the compressed one did not fit.
    let is_full = if is_plain { bytes == "65536" } else { bytes.parse::<u64>()? > 32_768 };
    ensure!(status == "1" && is_full, "status {status} with {bytes} bytes: {said}");
    let path = mount.join(name);
    let path = path.to_str().context("UTF-8")?;
    for wanted in [&format!("cannot write the recording {path}"), "No space left on device", "make room"] {
        ensure!(said.contains(wanted), "no {wanted:?} in {said}");
    }
    let summary: Value = serde_json::from_str(summary)?;
    if !is_plain {
        let events = summary["events"].as_u64().context("events")?;
        ensure!(summary["type"] == "summary" && events > 100, "{summary}");
        return Ok(());
    }
    ensure!(note.contains(&format!("all of its {whole} whole lines were used")), "{note}");
    // All but the header, and a few lines about time and the sockets at the start, are events.
    let (whole, events): (u64, u64) = (whole.parse()?, summary["events"].as_u64().context("events")?);
    ensure!(summary["type"] == "summary" && events > 100 && events + 20 > whole, "{whole}: {summary}");
    Ok(())
}

/// Records what `report` is fed, until it is told to stop.
struct Recording {
    path: PathBuf,
    file: Option<File>,
    session: Option<Session>,
    begun: Option<Sender<()>>,
    stop: Arc<AtomicBool>,
}

impl Handler for Recording {
    fn started(&mut self, engine: &Engine) -> Result<()> {
        let file = self.file.take().context("started twice")?;
        self.session = Some(Session::start(&self.path, file, engine, Vec::new())?);
        self.begun.take().context("started twice")?.send(())?;
        Ok(())
    }

    fn event(&mut self, event: &Event) {
        if let Some(session) = &mut self.session {
            session.event(event);
        }
    }

    fn input(&mut self, input: &Input) -> Result<()> {
        Ok(self.session.as_mut().context("not started")?.input(input)?)
    }

    fn turn(&mut self, engine: &mut Engine) -> Result<ControlFlow<()>> {
        self.session.as_mut().context("not started")?.turn(engine)?;
        Ok(match self.stop.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    }
}

const CLOSED: u64 = 25;
const ORPHANS: u64 = 12;

/// Every closing state, ended and open. Returns when the orphans are gone; what is still open stays so.
fn traffic(begun: &Receiver<()>) -> Result<Meeting> {
    begun.recv()?;
    let meeting = Meeting::new(Flavour::V4)?;
    let mut kept = Vec::new();
    for _ in 0..ORPHANS {
        let pair = meeting.pair()?;
        drop(pair.client);
        kept.push((pair.server, pair.server_addr, pair.client_addr));
        for _ in 0..CLOSED / ORPHANS {
            connection(&meeting)?;
        }
    }
    for _ in 0..CLOSED % ORPHANS {
        connection(&meeting)?;
    }
    wait_until("the orphans' end", AT_ONCE, || {
        kept.iter().all(|(_, server, client)| truth::socket(*client, *server).is_ok_and(|one| one.is_none()))
    })?;
    // Half of the forgotten ends are closed after all, and answered by RST.
    kept.truncate(kept.len() / 2);
    // The others are still open when tracing ends: never closed by this process.
    std::mem::forget(kept);
    Ok(meeting)
}

/// `report --json` with a recording of all that it is fed beside it, against `report --from` that recording.
fn replayed(sandbox: &Sandbox) -> Result<()> {
    sandbox.set_sysctl("net.ipv4.tcp_fin_timeout", "2")?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("same.jsonl.zst");
    let filter = Filter {
        namespaces: vec![Netns { wanted: sandbox.netns().to_string(), inode: sandbox.netns() }],
        states: [
            State::FinWait1,
            State::FinWait2,
            State::TimeWait,
            State::CloseWait,
            State::LastAck,
            State::Closing,
        ]
        .into_iter()
        .collect::<StateSet>(),
        ..Filter::default()
    };
    let wanted = Wanted {
        filter: &filter,
        by: None,
        states: filter.states,
        detail: Detail::Dwells,
        tracing: &Tracing::default(),
        tick: live::PROMPT_TICK,
    };
    let source = Source::Live;
    let mut engine = source.engine(&wanted);
    let (begun, waits) = channel();
    let stop = Arc::new(AtomicBool::new(false));
    let mut recording = Recording {
        path: path.clone(),
        file: Some(recording::create(&path, false)?),
        session: None,
        begun: Some(begun),
        stop: Arc::clone(&stop),
    };
    let busy = thread::spawn(move || {
        let done = traffic(&waits);
        stop.store(true, Ordering::Relaxed);
        done
    });
    // On a thread of its own, as it gives up what this one needs afterwards: starting programs.
    let traced =
        thread::scope(|scope| scope.spawn(|| Source::Live.run(&mut engine, &wanted, &mut recording)).join());
    traced.map_err(|_| anyhow::anyhow!("the trace panicked"))??;
    let _listening = busy.join().map_err(|_| anyhow::anyhow!("the traffic panicked"))??;
    recording.session.context("never started")?.finish(&engine)?;
    let mut live = Vec::new();
    json::write_report(&engine.snapshot(&*source.containers()), &mut live)?;
    let live = String::from_utf8(live)?;

    let path = path.to_str().context("UTF-8")?;
    let replay = || -> Result<String> {
        let output = run(&["report", "--from", path, "--json"])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_whole = !said.contains("has no end") && !said.contains("damaged");
        ensure!(output.status.success() && is_whole, "{}: {said}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    };
    let first = replay()?;
    ensure!(first == replay()?, "two replays differ");
    for (live, replayed) in live.lines().zip(first.lines()) {
        ensure!(live == replayed, "live:\n{live}\nreplayed:\n{replayed}");
    }
    ensure!(live == first, "{} and {} lines", live.lines().count(), first.lines().count());

    let lines: Vec<Value> = live.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let report = |state: &str, phase: Option<&str>| {
        let is_it = |line: &&Value| {
            line["state"] == state && line["phase"].as_str() == phase && line["key"].is_null()
        };
        lines.iter().find(is_it).with_context(|| format!("no {state}: {live}"))
    };
    // What was lost, which the replay has said as well, is missing here.
    let summary = lines.last().context("a summary")?;
    if summary["loss"].as_object().context("loss")?.values().any(|lost| *lost != 0) {
        return Ok(());
    }
    let orphans = report("FIN_WAIT2", Some("orphaned"))?;
    // Where the peer was held up for more than a millisecond, a close that is none of theirs waited as an orphan, too.
    let moved_on = orphans["ends"]["moved_on"].as_u64().unwrap_or(0);
    ensure!(
        orphans["ends"]["timed_out"] == ORPHANS && orphans["finished"]["count"] == ORPHANS + moved_on,
        "{orphans}"
    );
    ensure!(report("TIME_WAIT", None)?["open"]["count"] == CLOSED, "{live}");
    let forgotten = report("CLOSE_WAIT", None)?;
    ensure!(forgotten["open"]["count"] == ORPHANS / 2, "{forgotten}");
    ensure!(forgotten["finished"]["count"] == CLOSED + ORPHANS / 2, "{forgotten}");
    Ok(())
}
