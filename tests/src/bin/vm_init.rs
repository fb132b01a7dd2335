//! The first process of the virtual machines that `cargo xtask vm-test` boots: makes a small system around the live
//! tests, runs them, says how it went on the console, and switches the machine off.
//!
//! What it says to xtask are lines that begin with `SAYS` and go on with one JSON object; everything else on the
//! console is for people.

use std::ffi::CStr;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, WaitOptions, getpid, wait};
use rustix::system::{RebootCommand, init_module, reboot, uname};
use serde_json::{Value, json};
use tcptrace::kernel::hz::hz;
use tcptrace::kernel::is_typed;
use tcptrace::kernel::privileges::Host;
use tcptrace::kernel::probe::{self, probe};
use tcptrace::wheel::Expected;

/// Before every line that is for xtask.
const SAYS: &str = "vm: ";
/// Arguments of the live tests, one a line.
const ARGUMENTS: &str = "/etc/arguments";
/// Kernel modules, loaded in the order of their names.
const MODULES: &str = "/modules";
/// Where the tracers' output is kept while the machine runs.
const KEPT: &str = "/run/kept";
const TCP_TIMEWAIT_LEN_S: u32 = 60;

/// What is mounted where. Without the last ones the tests can still say much.
const MOUNTS: [(&CStr, &CStr, &CStr); 6] = [
    (c"proc", c"/proc", c""),
    (c"sysfs", c"/sys", c""),
    (c"devtmpfs", c"/dev", c""),
    (c"tmpfs", c"/run", c""),
    (c"tmpfs", c"/tmp", c"mode=1777"),
    (c"cgroup2", c"/sys/fs/cgroup", c""),
];

fn main() {
    if getpid() != Pid::INIT {
        eprintln!(
            "vm_init is the first process of a virtual machine (cargo xtask vm-test), and nothing else"
        );
        std::process::exit(2);
    }
    if let Err(error) = run() {
        say(&json!({ "error": format!("{error:#}") }));
    }
    rustix::fs::sync();
    // The machine has no disk: nothing is lost. On error it stays until its time is over.
    let error = reboot(RebootCommand::PowerOff);
    say(&json!({ "error": format!("cannot switch off: {error:?}") }));
}

/// One line for xtask.
fn say(what: &Value) {
    println!("{SAYS}{what}");
}

fn run() -> Result<()> {
    for (kind, target, data) in MOUNTS {
        let path = Path::new(target.to_str()?);
        // Some are there already, or are made by the file system above.
        let _ = fs::create_dir_all(path);
        mount(kind, target, kind, MountFlags::empty(), data).with_context(|| format!("mount {path:?}"))?;
    }
    fs::create_dir_all(KEPT)?;
    load_modules()?;
    let system = uname();
    say(&json!({
        "release": system.release().to_string_lossy(),
        "machine": system.machine().to_string_lossy(),
        "hz": hz(),
        "refused": refused_hooks(),
    }));
    let arguments = fs::read_to_string(ARGUMENTS).context(ARGUMENTS)?;
    let mut tests = Command::new("/bin/live");
    tests.args(arguments.lines()).env_clear().env("PATH", "/bin").env("TMPDIR", "/tmp");
    tests.env("TCPTRACE_BIN", "/bin/tcptrace").env("TCPTRACE_TEST_KEEP", KEPT);
    tests.env("TCPTRACE_TEST_CORE_ONLY", "1").env("TCPTRACE_TEST_OWN_MACHINE", "1");
    let status = to_its_end(&mut tests)?;
    let lines = kept_lines()?;
    say(&json!({
        "tracers": tracers(&lines),
        "time_wait": time_wait(&lines)?,
        "uptime_ns": tests::clock::now_ns(),
        "status": status.code(),
    }));
    Ok(())
}

/// Everything that the tracers said.
fn kept_lines() -> Result<Vec<Value>> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(KEPT)? {
        for line in fs::read_to_string(entry?.path())?.lines() {
            lines.push(serde_json::from_str(line)?);
        }
    }
    Ok(lines)
}

/// How many of the tracers used which kind of programs, as their summaries say.
fn tracers(lines: &[Value]) -> Value {
    let (mut typed, mut plain) = (0, 0);
    for line in lines.iter().filter(|line| line["type"] == "summary") {
        let Some(programs) = line["bpf"]["programs"].as_array() else { continue };
        let is_of_types = programs.iter().filter_map(|program| program["name"].as_str()).any(is_typed);
        *(if is_of_types { &mut typed } else { &mut plain }) += 1;
    }
    json!({ "typed": typed, "plain": plain })
}

/// Programs that this kernel does not take, and why; none, unless they are optional.
fn refused_hooks() -> Vec<Value> {
    let probe = probe(&Host::look(), 64 << 10);
    let hooks = probe.hooks.into_iter().filter_map(|hook| match hook.outcome {
        probe::Outcome::Works => None,
        probe::Outcome::Refused(why) => Some(json!({ "program": hook.program, "why": why })),
        probe::Outcome::NotTried => Some(json!({ "program": hook.program, "why": "not tried" })),
    });
    hooks.collect()
}

fn load_modules() -> Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(MODULES).context(MODULES)? {
        files.push(entry?.path());
    }
    files.sort();
    for file in files {
        init_module(&fs::read(&file)?, c"").with_context(|| format!("load {file:?}"))?;
    }
    Ok(())
}

/// Runs a command, and buries everybody whose parent has died meanwhile: nobody else would.
fn to_its_end(command: &mut Command) -> Result<ExitStatus> {
    use std::os::unix::process::ExitStatusExt as _;
    let child = command.spawn().with_context(|| format!("{command:?}"))?;
    let child = Pid::from_raw(i32::try_from(child.id())?).context("pid")?;
    loop {
        match wait(WaitOptions::empty())? {
            Some((pid, status)) if pid == child => return Ok(ExitStatus::from_raw(status.as_raw())),
            _ => {}
        }
    }
}

/// Of the TIME_WAITs that ran their full time: how many, the shortest and the longest, as tcptrace told them, and
/// what the timer wheel allows at this HZ.
fn time_wait(lines: &[Value]) -> Result<Option<Value>> {
    let mut dwells = Vec::new();
    for line in lines {
        let is_whole = line["dwell_is_lower_bound"] == false && line["end"] == "expired";
        if is_whole && line["from"] == "TIME_WAIT" {
            dwells.push(line["dwell_ns"].as_u64().context("an end without a dwell")?);
        }
    }
    let wheel = hz().and_then(|hz| Expected::of(TCP_TIMEWAIT_LEN_S * hz, hz)).context("HZ")?;
    let (Some(shortest), Some(longest)) = (dwells.iter().min(), dwells.iter().max()) else { return Ok(None) };
    Ok(Some(json!({
        "count": dwells.len(),
        "shortest_ns": shortest,
        "longest_ns": longest,
        "at_least_ns": wheel.base_ns,
        "at_most_ns": wheel.latest_ns,
    })))
}
