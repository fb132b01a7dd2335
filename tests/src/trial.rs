//! How a live trial is run, and when it cannot be.
//!
//! Each trial is a process of its own: this binary again, told by the environment which trial it is. What a process
//! starts holds copies of all its sockets until exec() has closed them, so if trials shared one, a socket that one
//! of them closes would live on for as long as another takes to start a program: closed later than the trial
//! measured, by another process, with its port still taken. tcptrace says so, rightly, and the trial fails.

use std::io::{Error, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use libtest_mimic::{Arguments, Failed, Trial};
use tcptrace::sandbox::{Sandbox, end_with_parent};

use crate::binary;

/// A trial: runs inside the given namespace.
pub type Body = fn(&Sandbox) -> Result<()>;

/// Set in the environment of a trial's process: its name.
const TRIAL: &str = "TCPTRACE_TEST_TRIAL";
/// Set in the environment of a trial's process: who must still be there.
const PARENT: &str = "TCPTRACE_TEST_TRIAL_PARENT";

/// How long after one trial the next one starts. They mostly wait, but all of them begin with work: a tracer that
/// loads, and looks at every descriptor of every process.
const APART: Duration = Duration::from_millis(200);
/// Whose turn it is to start.
static TURN: Mutex<()> = Mutex::new(());

/// Every trial that was made, for the process that is to be one of them.
static BODIES: Mutex<Vec<(String, Body)>> = Mutex::new(Vec::new());

/// A trial in a process and a network namespace of its own.
#[must_use]
pub fn live(name: &str, body: Body) -> Trial {
    BODIES.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), body));
    let own = name.to_owned();
    Trial::test(name, move || in_a_process(&own))
}

/// Whether this process is one trial of many, and not the one that runs them.
#[must_use]
pub fn is_one() -> bool {
    std::env::var_os(TRIAL).is_some()
}

fn in_a_process(name: &str) -> Result<(), Failed> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let child = Command::new(std::env::current_exe()?)
        .env(TRIAL, name)
        .env(PARENT, std::process::id().to_string())
        // Found or built once, for all.
        .env("TCPTRACE_BIN", binary::path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    std::thread::sleep(APART);
    drop(turn);
    let output = child.wait_with_output()?;
    if output.status.success() {
        // What was left out, and why.
        std::io::stdout().write_all(&output.stdout)?;
        return Ok(());
    }
    let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    Err(format!("{}{}({})", said[0], said[1], output.status).into())
}

/// Is the one trial that the environment names, on a thread of its name; `None` where it names none.
fn become_trial_if_asked() -> Option<ExitCode> {
    let name = std::env::var(TRIAL).ok()?;
    let bodies = BODIES.lock().unwrap_or_else(PoisonError::into_inner);
    let outcome = bodies
        .iter()
        .find(|(known, _)| *known == name)
        .with_context(|| format!("no trial {name:?}"))
        .and_then(|&(_, body)| alone(&name, body));
    Some(match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    })
}

fn alone(name: &str, body: Body) -> Result<()> {
    end_with_parent(std::env::var(PARENT)?.parse()?)?;
    let inside = move || -> Result<()> {
        let sandbox = Sandbox::new()?;
        sandbox.enter(|| body(&sandbox))?
    };
    let running = std::thread::Builder::new().name(name.to_owned()).spawn(inside)?;
    running.join().map_err(|_| Error::other("panicked"))?
}

/// Why live trials cannot run here; `None` when they can.
#[must_use]
pub fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root (namespaces and BPF need it)".to_owned());
    }
    if let Err(error) = std::fs::metadata("/sys/kernel/btf/vmlinux") {
        return Some(format!("this kernel tells no types (/sys/kernel/btf/vmlinux: {error})"));
    }
    Sandbox::new().err().map(|error| error.to_string())
}

/// Runs them all at once, for they mostly wait. Where they cannot run they are counted
/// as skipped, with the reason, never as passed.
pub fn run(trials: Vec<Trial>) -> ExitCode {
    if let Some(outcome) = become_trial_if_asked() {
        return outcome;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(trials.len().max(1));
    let obstacle = obstacle();
    let number = trials.len();
    let skipped = obstacle.is_some() && !arguments.list;
    let trials = trials.into_iter().map(|trial| if skipped { trial.with_ignored_flag(true) } else { trial });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if let (true, Some(reason)) = (skipped, obstacle) {
        println!("SKIPPED {number} live tests: {reason}");
    }
    conclusion.exit_code()
}
