//! What goes wrong under the full screen: the terminal is given back, the reason is said, and what was recorded is
//! whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use tcptrace::engine::Input;
use tcptrace::recording::{Ending, Reader};
use tcptrace::sandbox::Sandbox;
use tests::binary;
use tests::clock::wait_until;
use tests::sockets::{Flavour, Meeting, read_eof};
use tests::spawn;
use tests::terminal::{LIMIT, Terminal, exit_code};
use tests::trial::live;
use tests::truth::attached;

/// Connections that are recorded.
const CONNECTIONS: usize = 20;
const PORT: u16 = 8080;

pub fn trials() -> Vec<Trial> {
    let has_strace = Command::new("strace").arg("--version").stdout(Stdio::null()).status().is_ok();
    let refused = live("a_kernel_that_refuses_ends_the_screen_in_good_order", refused);
    if !has_strace {
        println!("SKIPPED {}: strace, which makes system calls fail, is not installed", refused.name());
    }
    vec![
        refused.with_ignored_flag(!has_strace),
        live("a_screen_without_descriptors_says_so_and_goes_on", no_descriptors),
        live("a_terminal_that_goes_leaves_a_whole_recording", terminal_gone),
    ]
}

/// The screen of one namespace, writing its files to a directory.
fn watch(sandbox: &Sandbox, dir: &Path) -> Result<Terminal> {
    let line = r#"cd "$1" && exec "$0" watch --netns "$2""#;
    let args = [path(binary::path())?, path(dir)?, &sandbox.netns().to_string()];
    let args: Vec<_> = ["-c", line].into_iter().chain(args).collect();
    let terminal = Terminal::start(Path::new("/bin/sh"), &args, &[], (100, 24))?;
    terminal.says("CLOSE_WAIT")?;
    Ok(terminal)
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("not UTF-8")
}

/// Begins a recording and makes connections, all of which are in it when this returns.
fn record(terminal: &mut Terminal, meeting: &Meeting) -> Result<()> {
    terminal.keys("r")?;
    terminal.says("recording to ")?;
    terminal.says(" REC ")?;
    connect(meeting)?;
    // At least six events each; the count in the title is that of the recording.
    terminal.shows("the events in the recording", |text| {
        recorded_events(text).is_some_and(|count| count >= 6 * CONNECTIONS)
    })?;
    Ok(())
}

fn connect(meeting: &Meeting) -> Result<()> {
    for _ in 0..CONNECTIONS {
        let mut pair = meeting.pair()?;
        drop(pair.client);
        read_eof(&mut pair.server)?;
    }
    Ok(())
}

fn recorded_events(text: &str) -> Option<usize> {
    let count = text.split(" REC ").nth(1)?.split_whitespace().next()?;
    count.replace(',', "").parse().ok()
}

/// The one recording in a directory.
fn recording(dir: &Path) -> Result<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    ensure!(files.len() == 1, "{files:?}");
    files.pop().context("counted")
}

/// It has its end, and every connection is in it.
fn is_whole(file: &Path) -> Result<()> {
    let mut reader = Reader::open(file)?;
    let mut minis = 0;
    while let Some(input) = reader.next_input() {
        minis += usize::from(matches!(input, Input::Event(tcptrace::event::Event::MiniStarted(_))));
    }
    ensure!(matches!(reader.ending(), Some(Ending::Complete(_))), "{:?}", reader.ending());
    ensure!(minis >= CONNECTIONS, "{minis} of {CONNECTIONS} TIME_WAITs");
    Ok(())
}

/// From one moment on the kernel answers EPERM to bpf(), as it would where a policy was tightened.
fn refused(sandbox: &Sandbox) -> Result<()> {
    let (dir, meeting) = (tempfile::tempdir()?, Meeting::on(Flavour::V4, PORT)?);
    let mut terminal = watch(sandbox, dir.path())?;
    record(&mut terminal, &meeting)?;
    let pid = terminal.pid().to_string();
    let mut strace = Command::new("strace");
    strace.args([
        "-qq",
        "-f",
        "-o",
        "/dev/null",
        "-e",
        "trace=bpf",
        "-e",
        "inject=bpf:error=EPERM",
        "-p",
        &pid,
    ]);
    let mut strace = spawn::start(strace.stdin(Stdio::null()))?;
    let ended = terminal.ended();
    let _ = strace.kill();
    strace.wait()?;
    let status = ended?;
    ensure!(exit_code(status) == Some(1), "{status}\n{}", terminal.text());
    terminal.is_as_before()?;
    let said = terminal.text();
    ensure!(
        said.contains("cannot read the loss counters") && said.contains("Operation not permitted"),
        "{said}"
    );
    let file = recording(dir.path())?;
    let name = file.file_name().and_then(|name| name.to_str()).context("a name")?;
    // Lines are as wide as the terminal.
    ensure!(said.replace('\n', "").contains(name), "the recording is not named:\n{said}");
    is_whole(&file)
}

/// No descriptor is left: nothing can be looked up and no file be opened. Tracing goes on.
fn no_descriptors(sandbox: &Sandbox) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let meeting = Meeting::on(Flavour::V4, PORT)?;
    let mut terminal = watch(sandbox, dir.path())?;
    let pid = Pid::from_raw(i32::try_from(terminal.pid())?).context("pid")?;
    let usual = getrlimit(Resource::Nofile);
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(0), ..usual })?;
    terminal.keys("r")?;
    terminal.shows("why there is no recording", |text| {
        text.contains("cannot record: ") && text.contains("Too many open files")
    })?;
    connect(&meeting)?;
    terminal.keys("5")?;
    terminal.shows("events", |text| text.matches("TIME_WAIT").count() > 2 && text.contains("LAST_ACK"))?;
    prlimit(Some(pid), Resource::Nofile, usual)?;
    record(&mut terminal, &meeting)?;
    terminal.keys("q")?;
    let status = terminal.ended()?;
    ensure!(exit_code(status) == Some(0), "{status}\n{}", terminal.text());
    terminal.is_as_before()?;
    is_whole(&recording(dir.path())?)
}

/// As when an ssh connection breaks.
fn terminal_gone(sandbox: &Sandbox) -> Result<()> {
    use std::io::Write as _;
    let (dir, meeting) = (tempfile::tempdir()?, Meeting::on(Flavour::V4, PORT)?);
    let line = format!("exec '{}' watch --netns {}", binary::path().display(), sandbox.netns());
    let mut command = Command::new("script");
    command.args(["--quiet", "--flush", "--command", &line, "/dev/null"]).env("TERM", "xterm");
    command.current_dir(dir.path()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut terminal = spawn::start(&mut command)?;
    let children = format!("/proc/{0}/task/{0}/children", terminal.id());
    let mut screen = None;
    let outcome = wait_until("the screen", LIMIT, || {
        let listed = fs::read_to_string(&children).unwrap_or_default();
        screen = listed.split_whitespace().next().and_then(|pid| pid.parse::<u32>().ok());
        // Its programs are attached.
        screen.is_some_and(|pid| attached(pid) >= 4)
    });
    let recorded = outcome.and_then(|()| {
        terminal.stdin.as_mut().context("stdin")?.write_all(b"r")?;
        wait_until("a recording", LIMIT, || recording(dir.path()).is_ok())?;
        // Compressed, a file has its first bytes when the recording has begun.
        wait_until("its beginning", LIMIT, || {
            recording(dir.path()).is_ok_and(|file| file.metadata().is_ok_and(|about| about.len() > 0))
        })?;
        connect(&meeting)
    });
    terminal.kill()?;
    terminal.wait()?;
    recorded?;
    let screen = screen.context("waited for")?;
    let gone = wait_until("the end of the screen", LIMIT, || !Path::new(&format!("/proc/{screen}")).exists());
    if gone.is_err() {
        let _ = kill_process(Pid::from_raw(i32::try_from(screen)?).context("pid")?, Signal::KILL);
    }
    gone?;
    is_whole(&recording(dir.path())?)
}
