//! `tcptrace watch` and `report` as a user runs them, with what they say as values.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::Value;
use tcptrace::sandbox::Sandbox;

use crate::clock::{now_ns, wait_until};
use crate::truth::attached;
use crate::{binary, sockets, spawn};

/// The port of the connections that show that tracing has begun. No trial uses it otherwise.
const PROBE_PORT: u16 = 1;
/// States on the way to ESTABLISHED.
const OPENING: [&str; 2] = ["SYN_SENT", "SYN_RECV"];
/// Programs that every tracing command attaches: transitions, and the three events of timers.
pub const REQUIRED_HOOKS: usize = 4;
/// How long tcptrace may take for anything that it does at once.
const AT_ONCE: Duration = Duration::from_secs(60);

/// A `transition` object.
#[derive(Clone, Debug, Deserialize)]
pub struct Transition {
    /// RFC 3339.
    pub time: String,
    /// CLOCK_MONOTONIC.
    pub mono_ns: u64,
    /// Number of the connection.
    pub conn: u64,
    /// Network namespace.
    pub netns: u32,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Local end.
    pub local: SocketAddr,
    /// Remote end.
    pub remote: SocketAddr,
    /// State that ended.
    pub from: String,
    /// State that began.
    pub to: String,
    /// Time in `from`.
    pub dwell_ns: Option<u64>,
    /// The beginning of `from` was not seen.
    pub dwell_is_lower_bound: bool,
    /// Of FIN_WAIT2.
    pub phase: Option<String>,
    /// Why `from` ended.
    pub end: Option<String>,
    /// Who.
    pub owner: Option<Owner>,
}

impl Transition {
    /// The dwell.
    ///
    /// # Errors
    /// When it is not known.
    pub fn dwell(&self) -> Result<u64> {
        self.dwell_ns.with_context(|| format!("no dwell: {self:?}"))
    }

    /// `FIN_WAIT2→TIME_WAIT`.
    #[must_use]
    pub fn arrow(&self) -> String {
        format!("{}→{}", self.from, self.to)
    }
}

/// Whose connection.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Owner {
    /// Process id.
    pub pid: u32,
    /// Task name.
    pub comm: String,
    /// How it is known.
    pub evidence: String,
}

/// The `summary` object.
#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    /// Length of the trace.
    pub seconds: f64,
    /// Events received.
    pub events: u64,
    /// Connections seen.
    pub connections: u64,
    /// What was lost, by cause.
    pub loss: BTreeMap<String, u64>,
    /// Share of the kernel's events that was received.
    pub seen_share: Option<f64>,
    /// Transitions that found no room, by kind.
    #[serde(default)]
    pub lost_transitions: Vec<LostTransitions>,
}

/// Transitions of one kind that found no room in the ring.
#[derive(Clone, Debug, Deserialize)]
pub struct LostTransitions {
    /// Old state.
    pub from: String,
    /// New state.
    pub to: String,
    /// How many.
    pub count: u64,
}

/// Everything one run said.
#[derive(Clone, Debug)]
pub struct Run {
    /// Every line but the last, as JSON.
    pub lines: Vec<Value>,
    /// Its transitions, those of the probe left out.
    pub transitions: Vec<Transition>,
    /// The last line.
    pub summary: Summary,
    /// The same with everything that it says.
    pub last: Value,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    /// The transitions of the socket whose ends are these, in the order in which they were printed.
    #[must_use]
    pub fn of(&self, local: SocketAddr, remote: SocketAddr) -> Vec<&Transition> {
        self.transitions.iter().filter(|line| line.local == local && line.remote == remote).collect()
    }

    /// The one transition of that socket out of `from` into `to`.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn one(&self, local: SocketAddr, remote: SocketAddr, from: &str, to: &str) -> Result<&Transition> {
        let of = self.of(local, remote);
        let found: Vec<_> = of.iter().filter(|line| line.from == from && line.to == to).collect();
        match found.as_slice() {
            [one] => Ok(one),
            _ => bail!("{} × {from}→{to} of {local} → {remote}, which did {}", found.len(), arrows(&of)),
        }
    }

    /// Fails unless that socket, once established, did exactly these transitions.
    ///
    /// # Errors
    /// When it did others; the text shows them.
    pub fn expect_path(&self, local: SocketAddr, remote: SocketAddr, expected: &[&str]) -> Result<()> {
        let mut of = self.of(local, remote);
        of.retain(|line| line.to != "ESTABLISHED" && !OPENING.contains(&line.to.as_str()));
        let same = of.iter().map(|line| line.arrow()).eq(expected.iter().map(|&arrow| arrow.to_owned()));
        ensure!(same, "{local} → {remote} did {}, expected {}", arrows(&of), expected.join(", "));
        Ok(())
    }

    /// True when nothing at all was lost.
    #[must_use]
    pub fn is_lossless(&self) -> bool {
        self.lost() == 0
    }

    /// Runs that the kernel skips because a program interrupted itself are mostly those of other timers of the
    /// host, and happen now and then; so do gaps, on hosts that run no BPF program on the time of some tasks. Trials
    /// that count take them into account, the others need not.
    fn expect_no_loss(&self) -> Result<()> {
        for cause in ["ring_full", "table_full"] {
            ensure!(self.summary.loss.get(cause) == Some(&0), "lost events: {:?}", self.summary.loss);
        }
        Ok(())
    }

    /// Everything that is stated as lost: of no state can more dwells be missing.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.summary.loss.iter().filter(|(cause, _)| *cause != "resyncs").map(|(_, count)| count).sum()
    }

    /// Transitions of this kind that found no room.
    #[must_use]
    pub fn lost_of(&self, from: &str, to: &str) -> u64 {
        let kind = self.summary.lost_transitions.iter().find(|lost| lost.from == from && lost.to == to);
        kind.map_or(0, |lost| lost.count)
    }

    /// The `state_report` without a key of this state and phase.
    ///
    /// # Errors
    /// When there is none.
    pub fn report(&self, state: &str, phase: Option<&str>) -> Result<&Value> {
        self.lines
            .iter()
            .find(|line| {
                line["type"] == "state_report"
                    && line["key"].is_null()
                    && line["state"] == state
                    && line["phase"].as_str() == phase
            })
            .with_context(|| format!("no report of {state} {phase:?}"))
    }
}

/// Writes what was said into the directory `TCPTRACE_TEST_KEEP`, when that is set: to look into a failed trial.
fn keep(pid: u32, lines: &[String]) -> Result<()> {
    let Some(directory) = std::env::var_os("TCPTRACE_TEST_KEEP") else { return Ok(()) };
    let thread = std::thread::current();
    let name = format!("{}-{pid}.jsonl", thread.name().unwrap_or("trial"));
    Ok(std::fs::write(Path::new(&directory).join(name), lines.concat())?)
}

fn arrows(transitions: &[&Transition]) -> String {
    transitions.iter().map(|line| line.arrow()).collect::<Vec<_>>().join(", ")
}

/// What has been said so far. Parsed as it comes, because trials look at it again and again.
#[derive(Debug, Default)]
struct Said {
    lines: Vec<String>,
    transitions: Vec<Transition>,
}

/// A running `tcptrace … --json`.
#[derive(Debug)]
pub struct Traced {
    child: Child,
    said: Arc<Mutex<Said>>,
    stdout: Option<JoinHandle<()>>,
    stderr: Option<JoinHandle<String>>,
}

impl Traced {
    /// `watch --json` on this namespace, with further arguments; returns once it is seen to report.
    ///
    /// # Errors
    /// When it does not.
    pub fn watch(sandbox: &Sandbox, args: &[&str]) -> Result<Self> {
        let netns = sandbox.netns().to_string();
        let traced = Self::start(&[&["watch", "--json", "--netns", &netns], args].concat())?;
        match traced.wait_until_it_sees(PROBE_PORT) {
            Ok(()) => Ok(traced),
            Err(error) => Err(error.context(traced.last_words())),
        }
    }

    /// `report --json` on this namespace, with further arguments; returns once its programs are attached.
    ///
    /// # Errors
    /// When they are not.
    pub fn report(sandbox: &Sandbox, args: &[&str]) -> Result<Self> {
        let netns = sandbox.netns().to_string();
        let traced = Self::start(&[&["report", "--json", "--netns", &netns], args].concat())?;
        match traced.wait_until_attached() {
            Ok(()) => Ok(traced),
            Err(error) => Err(error.context(traced.last_words())),
        }
    }

    /// Waits until its programs are attached: for a run whose output would not show the probe.
    ///
    /// # Errors
    /// When they are not.
    pub fn wait_until_attached(&self) -> Result<()> {
        wait_until("attached programs", AT_ONCE, || attached(self.child.id()) >= REQUIRED_HOOKS)
    }

    /// Any command with any arguments, in the calling thread's namespace; returns at once.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(args: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary::path());
        command.args(args);
        Self::start_command(command)
    }

    /// The same by another program that runs it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_command(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn::start(&mut command).with_context(|| binary::path().display().to_string())?;
        let said = Arc::new(Mutex::new(Said::default()));
        let mut out = BufReader::new(child.stdout.take().context("stdout")?);
        let kept = Arc::clone(&said);
        let stdout = std::thread::spawn(move || {
            let mut line = String::new();
            // A line without its newline at the end is kept as it is: it will not parse.
            while out.read_line(&mut line).is_ok_and(|read| read > 0) {
                let transition = serde_json::from_str(&line).ok();
                let mut said = kept.lock().unwrap();
                said.transitions.extend(transition);
                said.lines.push(std::mem::take(&mut line));
            }
        });
        let mut err = child.stderr.take().context("stderr")?;
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = err.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Ok(Self { child, said, stdout: Some(stdout), stderr: Some(stderr) })
    }

    /// Makes connections to `port` until one is reported.
    ///
    /// # Errors
    /// When none is.
    pub fn wait_until_it_sees(&self, port: u16) -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let addr = listener.local_addr()?;
        let deadline = now_ns() + u64::try_from(AT_ONCE.as_nanos())?;
        loop {
            // Both ends by RST, so that nothing of the probe stays behind.
            let client = TcpStream::connect(addr)?;
            let (server, _) = listener.accept()?;
            sockets::reset(client)?;
            sockets::reset(server)?;
            std::thread::sleep(Duration::from_millis(20));
            if self
                .said
                .lock()
                .unwrap()
                .transitions
                .iter()
                .any(|line| line.remote == addr || line.local == addr)
            {
                return Ok(());
            }
            if now_ns() > deadline || self.stdout.as_ref().is_some_and(JoinHandle::is_finished) {
                bail!("tcptrace reports nothing");
            }
        }
    }

    /// Kills it; what stood on its standard error.
    fn last_words(mut self) -> String {
        let _ = self.child.kill();
        self.stderr.take().and_then(|reader| reader.join().ok()).unwrap_or_default()
    }

    /// The transitions so far, those of the probe included.
    #[must_use]
    pub fn transitions(&self) -> Vec<Transition> {
        self.said.lock().unwrap().transitions.clone()
    }

    /// The lines so far, as JSON; those that are none are left out.
    #[must_use]
    pub fn lines(&self) -> Vec<Value> {
        let said = self.said.lock().unwrap();
        said.lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until `enough` of the transitions so far.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        enough: impl Fn(&[Transition]) -> bool,
    ) -> Result<()> {
        wait_until(what, limit, || enough(&self.said.lock().unwrap().transitions))
    }

    /// Waits until so many sockets with this local end have gone to CLOSE.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub fn wait_for_close(&self, local: SocketAddr, limit: Duration) -> Result<()> {
        self.wait_for(&format!("the end of {local}"), limit, |lines| {
            lines.iter().any(|line| line.local == local && line.to == "CLOSE")
        })
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("pid")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Ctrl-C, then everything it said. Fails unless it ended with status 0, with valid JSON on every line and a
    /// summary on the last, and without loss.
    ///
    /// # Errors
    /// As said.
    pub fn finish(self) -> Result<Run> {
        let run = self.finish_lossy()?;
        run.expect_no_loss()?;
        Ok(run)
    }

    /// As [`Traced::finish`], where events may have been lost.
    ///
    /// # Errors
    /// As said.
    pub fn finish_lossy(self) -> Result<Run> {
        // What has just happened waits in the ring for the reader's next tick, at most 100 ms away.
        std::thread::sleep(Duration::from_millis(150));
        self.signal(Signal::INT)?;
        self.collect(AT_ONCE)
    }

    /// As [`Traced::finish`], for a command that ends by itself within `limit`.
    ///
    /// # Errors
    /// As said.
    pub fn ended(self, limit: Duration) -> Result<Run> {
        let run = self.collect(limit)?;
        run.expect_no_loss()?;
        Ok(run)
    }

    /// As [`Traced::ended`], where events may have been lost.
    ///
    /// # Errors
    /// As said.
    pub fn ended_lossy(self, limit: Duration) -> Result<Run> {
        self.collect(limit)
    }

    /// Waits for the end of a command that says nothing on standard output. Fails unless it ended with status 0.
    ///
    /// # Errors
    /// As said.
    pub fn exited(mut self, limit: Duration) -> Result<()> {
        let status = self.status(limit)?;
        let stderr = self.stderr.take().context("joined once")?.join().unwrap_or_default();
        ensure!(status.success(), "tcptrace ended with {status}: {stderr}");
        Ok(())
    }

    fn status(&mut self, limit: Duration) -> Result<ExitStatus> {
        let mut status = None;
        wait_until("the end of tcptrace", limit, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        })?;
        status.context("status")
    }

    fn collect(mut self, limit: Duration) -> Result<Run> {
        let status = self.status(limit)?;
        self.stdout.take().context("joined once")?.join().map_err(|_| anyhow::anyhow!("reader panicked"))?;
        let stderr = self.stderr.take().context("joined once")?.join().unwrap_or_default();
        ensure!(status.success(), "tcptrace ended with {status}: {stderr}");
        ensure!(!stderr.contains("panicked"), "{stderr}");

        let text = std::mem::take(&mut self.said.lock().unwrap().lines);
        keep(self.child.id(), &text)?;
        let mut lines = Vec::with_capacity(text.len());
        for line in &text {
            let value: Value = serde_json::from_str(line).with_context(|| format!("{line:?}"))?;
            lines.push(value);
        }
        let last = lines.pop().with_context(|| format!("no output; {stderr}"))?;
        ensure!(last["type"] == "summary", "the last line is no summary: {last}");
        let summary: Summary = serde_json::from_value(last.clone())?;
        let mut transitions = Vec::new();
        for line in lines.iter().filter(|line| line["type"] == "transition") {
            let transition: Transition = serde_json::from_value(line.clone()).context(line.to_string())?;
            if transition.local.port() != PROBE_PORT && transition.remote.port() != PROBE_PORT {
                transitions.push(transition);
            }
        }
        Ok(Run { lines, transitions, summary, last, stderr })
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // Ended already, unless the trial failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
