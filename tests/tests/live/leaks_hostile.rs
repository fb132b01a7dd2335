//! Task names and command lines are other people's bytes: nothing that prints them may pass them on.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use tcptrace::sandbox::Sandbox;
use tests::binary;
use tests::clock::wait_until;
use tests::leaker::{Language, Leaker};
use tests::traced::Traced;
use tests::trial::live;

pub fn trials() -> Vec<Trial> {
    vec![live("leaks_states_and_run_are_not_impressed_by_hostile_names", hostile)]
}

/// A task name and a command line that would clear the screen, forge a line, and are no UTF-8.
fn hostile(sandbox: &Sandbox) -> Result<()> {
    if !Language::Python.is_here() {
        return Ok(());
    }
    let netns = sandbox.netns().to_string();
    let argument = "\u{1b}[2J\u{1b}]0;title\u{7}\n\u{202e}\"}{";
    let mut program = Leaker::start(Language::Python, &["--name", "1b5b324a0aff225c7d", argument])?;
    program.leak("consumed 2")?;
    let of = |args: &[&str]| {
        let common = ["leaks", "--min-age", "0s", "--netns", &netns, "--color", "never"];
        Command::new(binary::path()).args(common).args(args).output()
    };
    for args in [&[][..], &["--json"], &["--duration", "1s"], &["--duration", "1s", "--json"]] {
        let output = of(args)?;
        let text = String::from_utf8(output.stdout)?;
        ensure!(output.status.success(), "{args:?}: {text}");
        harmless(&text).with_context(|| format!("{args:?}"))?;
        if args.contains(&"--json") {
            let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
            let is_it = |line: &&Value| line["process"]["pid"] == program.pid();
            let leak = lines.iter().find(is_it).context("not reported")?;
            ensure!(leak["process"]["comm"] == "\\x1b[2J\\x0a\\xff\"\\\\}", "{leak}");
        }
    }
    for args in [&["--by", "process"][..], &["--by", "process", "--json"]] {
        let common = ["states", "--netns", &netns, "--color", "never"];
        let output = Command::new(binary::path()).args(common).args(args).output()?;
        harmless(&String::from_utf8(output.stdout)?).with_context(|| format!("states {args:?}"))?;
    }
    hostile_while_followed(&mut program, &netns)?;
    hostile_command(argument)
}

/// Every line of `leaks --follow`.
fn hostile_while_followed(program: &mut Leaker, netns: &str) -> Result<()> {
    let follow = ["leaks", "--json", "--min-age", "0s", "--netns", netns, "--follow", "--interval", "1s"];
    let tracer = Traced::start(&follow)?;
    wait_until("the first report", Duration::from_secs(30), || {
        tracer.lines().iter().any(|line| line["type"] == "leak_total")
    })?;
    program.leak("consumed 1")?;
    let run = tracer.finish_lossy()?;
    let text: Vec<String> = run.lines.iter().map(Value::to_string).collect();
    harmless(&text.join("\n"))
}

/// `run`, whose command has such a name and such an argument.
fn hostile_command(argument: &str) -> Result<()> {
    for format in [&["--json"][..], &[]] {
        let mut command = Command::new(binary::path());
        command.arg("run").args(format).arg("--").arg("python3").arg(Language::Python.source());
        command.args(["--name", "1b5b324a0aff225c7d", argument]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("stdin")?.write_all(b"consumed 2\n")?;
        let output = child.wait_with_output()?;
        harmless(&String::from_utf8(output.stderr)?).with_context(|| format!("run {format:?}"))?;
    }
    Ok(())
}

/// The name is there, and shown so that it does nothing.
fn harmless(text: &str) -> Result<()> {
    ensure!(text.contains("x1b[2J"), "{text}");
    let is_harmful = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    ensure!(!text.contains(is_harmful), "{text:?}");
    Ok(())
}
