//! `tcptrace watch` on the demonstration, as a person uses it in a terminal.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use tcptrace::sandbox::Sandbox;
use tests::binary;
use tests::clock::{now_ns, sleep_ms};
use tests::terminal::{Terminal, exit_code};
use tests::trial::live;

pub fn trials() -> Vec<Trial> {
    vec![
        live("screen_of_the_demonstration", screen),
        live("the_screens_keys_make_their_files", |sandbox| keys_make_files(sandbox, "")),
        // Keys are then read from /dev/tty, which is opened for writing, too.
        live("the_screens_keys_without_standard_input", |sandbox| keys_make_files(sandbox, "</dev/null")),
    ]
}

/// Frames that change what is seen; each begins with this, for terminals that can show a frame at once.
const FRAME: &[u8] = b"\x1b[?2026h";
/// What a screen that nobody touches may draw, and what that may cost on a slow line.
const FRAMES_PER_S: f64 = 4.0;
const BYTES_PER_S: f64 = 4_000.0;

fn screen(_: &Sandbox) -> Result<()> {
    let mut terminal = Terminal::start(binary::path(), &["demo", "--rate", "10", "watch"], &[], (100, 30))?;
    // By name, and since when, without a key.
    let shown = terminal.says("demo-leaky[")?;
    let shown = if shown.contains("leaks") { shown } else { terminal.says(" leaks ")? };
    ensure!(terminal.is_taken(), "{shown}");
    ensure!(shown.contains("in CLOSE_WAIT, ") && shown.contains("since "), "{shown}");
    let pid = shown
        .split("demo-leaky[")
        .nth(1)
        .and_then(|rest| rest.split(']').next())
        .and_then(|pid| pid.parse::<u32>().ok())
        .with_context(|| format!("no process is named:\n{shown}"))?;
    let comm = fs::read_to_string(format!("/proc/{pid}/comm"))?;
    ensure!(comm.trim_end() == "demo-leaky", "{pid} is {comm:?}");

    is_quiet(&terminal)?;

    // Opens it: whatever is wrong, and where.
    terminal.keys("2\r")?;
    let shown = terminal.says("growth ")?;
    ensure!(shown.contains("where ") && shown.contains("accepted on 127.0.0.1:808"), "{shown}");
    // A key right behind Esc would be one with Alt.
    terminal.keys("\x1b")?;
    terminal.says("A MINUTE")?;

    // Searches.
    terminal.keys("4/demo-orphans\r")?;
    let is_found = |text: &str| text.contains("search \"demo-orphans\"") && !rows(text).is_empty();
    let shown = terminal.shows("what the search finds", is_found)?;
    ensure!(rows(&shown).iter().all(|row| row.contains("demo-orph")), "{shown}");
    terminal.keys("\x1b")?;
    terminal.shows("the end of the search", |text| !text.contains("search \""))?;

    // Pauses: nothing moves, whatever happens meanwhile.
    terminal.keys("5")?;
    terminal.shows("events", |text| text.matches("127.0.0.1:").count() > 10)?;
    terminal.keys("p")?;
    let still = terminal.says("PAUSED")?;
    sleep_ms(3_000);
    ensure!(terminal.text() == still, "{still}\nand 3 s later\n{}", terminal.text());
    terminal.keys("p")?;
    terminal.shows("that it goes on", |text| !text.contains("PAUSED") && text != still)?;

    // A filter as on the command line, and one that is wrong.
    terminal.keys("1f--port nonsense\r")?;
    terminal.says("nonsense")?;
    terminal.keys("f\x15--comm demo-leaky\r")?;
    terminal.says("filter --comm demo-leaky; figures count from now on")?;

    terminal.resize(200, 60)?;
    terminal.says("LAST 5 MINUTES")?;
    terminal.resize(39, 7)?;
    terminal.says("too small")?;
    terminal.resize(80, 24)?;
    terminal.says("CLOSE_WAIT")?;

    terminal.keys("q")?;
    let status = terminal.ended()?;
    ensure!(exit_code(status) == Some(0), "{status}\n{}", terminal.text());
    terminal.is_as_before()?;
    ensure!(terminal.text().contains(" connections"), "no summary:\n{}", terminal.text());
    Ok(())
}

/// What is on the screen and a recording are written while no other thread can make a file.
fn keys_make_files(sandbox: &Sandbox, input: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let script = format!("cd \"$1\" && exec \"$0\" watch --netns \"$2\" {input}");
    let (program, netns) = (binary::path().to_str().context("UTF-8")?, sandbox.netns().to_string());
    let args = ["-c", &script, program, dir.path().to_str().context("UTF-8")?, &netns];
    let mut terminal = Terminal::start(Path::new("sh"), &args, &[], (200, 30))?;
    terminal.says("nothing is wrong")?;
    terminal.keys("e")?;
    terminal.says("written to ")?;
    terminal.keys("r")?;
    terminal.says("recording to ")?;
    let is_recording = |name: &str| name.starts_with("tcptrace-recording-");
    let names = || -> Result<Vec<String>> {
        fs::read_dir(&dir)?.map(|entry| entry?.file_name().into_string().ok().context("UTF-8")).collect()
    };
    let made = names()?;
    ensure!(made.len() == 2 && made.iter().filter(|name| is_recording(name)).count() == 1, "{made:?}");
    terminal.keys("r")?;
    terminal.says("tcptrace watch --from plays it")?;
    terminal.keys("q")?;
    let status = terminal.ended()?;
    ensure!(exit_code(status) == Some(0), "{status}\n{}", terminal.text());
    terminal.is_as_before()?;
    for name in names()? {
        let path = dir.path().join(&name);
        let is_whole = if is_recording(&name) {
            let output = Command::new(program).args(["report", "--json", "--from"]).arg(&path).output()?;
            output.status.success() && output.stderr.is_empty()
        } else {
            fs::read_to_string(&path)?.lines().all(|line| serde_json::from_str::<Value>(line).is_ok())
        };
        ensure!(is_whole, "{name}");
    }
    Ok(())
}

/// Connections in their table: lines with two addresses.
fn rows(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.matches("127.0.0.1:").count() == 2).collect()
}

/// While nobody touches it, it draws four times a second at most, and only what has changed.
fn is_quiet(terminal: &Terminal) -> Result<()> {
    let (before, begun) = (terminal.bytes().len(), now_ns());
    sleep_ms(5_000);
    let written = terminal.bytes().split_off(before);
    let seconds = (now_ns() - begun) as f64 / 1e9;
    let frames = written.windows(FRAME.len()).filter(|bytes| *bytes == FRAME).count();
    println!("idle: {frames} frames and {} bytes in {seconds:.1} s", written.len());
    ensure!(frames > 0, "it stands still");
    ensure!(frames as f64 <= FRAMES_PER_S * seconds + 1.0, "{frames} frames in {seconds} s");
    ensure!(written.len() as f64 <= BYTES_PER_S * seconds, "{} bytes in {seconds} s", written.len());
    Ok(())
}
