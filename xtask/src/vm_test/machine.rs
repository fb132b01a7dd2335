//! Booting a kernel in QEMU and listening to what it says.

use std::fmt;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::kernel::{Arch, Kernel};
use crate::cargo::find_in_path;
use crate::test::{Count, count, failed_test};

/// Before every line that `vm_init` says to us (`tests/src/bin/vm_init.rs`).
const SAYS: &str = "vm: ";
/// MiB. The files of the initramfs take some hundred.
const MEMORY: &str = "1024";
/// One to stay, and one to come and go.
const PROCESSORS: &str = "2";

/// The TIME_WAITs that ran their full time; nanoseconds.
#[derive(Clone, Debug, Deserialize)]
pub struct TimeWait {
    /// How many.
    pub count: u64,
    /// As measured.
    pub shortest_ns: u64,
    /// As measured.
    pub longest_ns: u64,
    /// What the timer wheel allows.
    pub at_least_ns: u64,
    /// What the timer wheel allows.
    pub at_most_ns: u64,
}

/// How many of the tracers that ran used which kind of programs.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Tracers {
    /// At typed tracepoints, whose arguments the verifier knows.
    pub typed: u64,
    /// At plain ones.
    pub plain: u64,
}

impl fmt::Display for Tracers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { typed: 0, plain: 0 } => f.write_str("none"),
            Self { plain: 0, .. } => f.write_str("typed"),
            Self { typed: 0, .. } => f.write_str("plain"),
            Self { typed, plain } => write!(f, "typed ({typed}), plain ({plain})"),
        }
    }
}

/// A program that the kernel did not take.
#[derive(Clone, Debug, Deserialize)]
pub struct RefusedHook {
    /// Its name.
    pub program: String,
    /// The reason in words.
    pub why: String,
}

/// What a machine said about itself and the tests. Every line tells a part.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    error: Option<String>,
    release: Option<String>,
    hz: Option<u32>,
    refused: Option<Vec<RefusedHook>>,
    tracers: Option<Tracers>,
    time_wait: Option<TimeWait>,
    uptime_ns: Option<u64>,
    status: Option<i32>,
}

/// How it went on one kernel.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// As `uname -r` prints it.
    pub release: String,
    /// Jiffies a second.
    pub hz: u32,
    /// Optional programs that it did without.
    pub refused: Vec<RefusedHook>,
    /// Which kind of programs the tracers used; `None` when none came to its end.
    pub tracers: Option<Tracers>,
    /// What the tests counted.
    pub count: Count,
    /// Which failed.
    pub failed: Vec<String>,
    /// `None` when there was none.
    pub time_wait: Option<TimeWait>,
    /// From power-on to power-off by the machine's own clock.
    pub uptime: Duration,
    /// The same by ours.
    pub took: Duration,
}

impl Outcome {
    /// Something was tested, and nothing failed.
    pub fn is_success(&self) -> bool {
        self.count.failed == 0 && self.count.passed > 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { release, hz, refused, tracers, count, uptime, took, .. } = self;
        write!(f, "{count} on Linux {release}, HZ {hz}, ")?;
        write!(f, "{:.0} s of its time in {:.0} s", uptime.as_secs_f64(), took.as_secs_f64())?;
        if let Some(tracers) = tracers {
            write!(f, "; programs: {tracers}")?;
        }
        for hook in refused {
            write!(f, "; without {}: {}", hook.program, hook.why)?;
        }
        if !self.failed.is_empty() {
            write!(f, "; FAILED: {}", self.failed.join(", "))?;
        }
        Ok(())
    }
}

/// The emulator for an architecture.
///
/// # Errors
/// When it is not here; the text says what to install.
pub fn find_emulator(arch: Arch) -> Result<PathBuf> {
    let (program, package) = match arch {
        Arch::Amd64 => ("qemu-system-x86_64", "qemu-system-x86"),
        Arch::Arm64 => ("qemu-system-aarch64", "qemu-system-arm"),
    };
    find_in_path(program)
        .with_context(|| format!("no {program}: apt-get install --no-install-recommends {package}"))
}

fn emulator(arch: Arch) -> Result<Command> {
    // It ends with us, however we end.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(find_emulator(arch)?);
    match arch {
        Arch::Amd64 => command.args(["-cpu", "max"]),
        // Authenticated pointers in the architecture's own algorithm are dear to emulate.
        Arch::Arm64 => command.args(["-machine", "virt", "-cpu", "max,pauth-impdef=on"]),
    };
    // Each instruction takes 2 ns, and time that nobody works in is skipped.
    command.args(["-accel", "tcg", "-icount", "shift=1,sleep=off", "-smp", PROCESSORS]);
    command.args(["-m", MEMORY, "-nodefaults"]);
    command.args(["-display", "none", "-monitor", "none", "-net", "none", "-serial", "stdio", "-no-reboot"]);
    Ok(command)
}

/// Boots `kernel` with `initramfs` and waits until it has switched itself off; what it says is printed and kept in
/// `log`.
pub fn run(kernel: &Kernel, image: &Path, initramfs: &Path, log: &Path, limit: Duration) -> Result<Outcome> {
    let console = match kernel.arch {
        Arch::Amd64 => "ttyS0",
        Arch::Arm64 => "ttyAMA0",
    };
    let mut command = emulator(kernel.arch)?;
    command.arg("-kernel").arg(image).arg("-initrd").arg(initramfs);
    // The second processor waits until a test wants it: two take turns here, and one that waits for the other spins
    // until its turn is over.
    command.arg("-append").arg(format!("console={console} quiet loglevel=3 panic=-1 maxcpus=1"));
    let began = Instant::now();
    let mut machine =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start QEMU")?;
    let lines = lines_of(machine.stdout.take().context("stdout")?);
    let mut said = Said::default();
    let mut counted = Count::default();
    let mut failed = Vec::new();
    let mut kept = String::new();
    let ended = loop {
        let line = match lines.recv_timeout(limit.saturating_sub(began.elapsed())) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Disconnected) => break true,
            Err(mpsc::RecvTimeoutError::Timeout) => break false,
        };
        kept += &line;
        kept.push('\n');
        if let Some(json) = line.strip_prefix(SAYS) {
            said.hear(serde_json::from_str(json).with_context(|| line.clone())?);
            continue;
        }
        println!("  {line}");
        counted += count(&line).unwrap_or_default();
        failed.extend(failed_test(&line).map(str::to_owned));
    };
    if !ended {
        machine.kill()?;
    }
    let status = machine.wait()?;
    fs::write(log, kept).with_context(|| log.display().to_string())?;
    let took = began.elapsed();
    if !ended {
        bail!("still running after {} s; it said what is in {}", took.as_secs(), log.display());
    }
    if let Some(error) = said.error {
        bail!("{error}; see {}", log.display());
    }
    let (Some(release), Some(hz), Some(uptime_ns)) = (said.release, said.hz, said.uptime_ns) else {
        bail!("it did not come to the end of the tests (QEMU: {status}); see {}", log.display());
    };
    if said.status != Some(0) && counted.failed == 0 {
        bail!("the tests ended with {:?} without naming a failed one; see {}", said.status, log.display());
    }
    Ok(Outcome {
        release,
        hz,
        refused: said.refused.unwrap_or_default(),
        tracers: said.tracers,
        count: counted,
        failed,
        time_wait: said.time_wait,
        uptime: Duration::from_nanos(uptime_ns),
        took,
    })
}

impl Said {
    fn hear(&mut self, more: Self) {
        self.error = more.error.or(self.error.take());
        self.release = more.release.or(self.release.take());
        self.hz = more.hz.or(self.hz);
        self.refused = more.refused.or(self.refused.take());
        self.tracers = more.tracers.or(self.tracers);
        self.time_wait = more.time_wait.or(self.time_wait.take());
        self.uptime_ns = more.uptime_ns.or(self.uptime_ns);
        self.status = more.status.or(self.status);
    }
}

/// The lines of a serial console, as they come.
fn lines_of(console: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}
