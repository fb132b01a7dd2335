//! What runs beside the load: nothing, tcptrace, or another tracer.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A tracer that is compared.
#[derive(Clone, Debug)]
pub struct Contender {
    /// As the table shows it.
    pub name: String,
    /// Shell command; `None` for no tracer at all.
    command: Option<String>,
    /// Time to attach.
    settle: Duration,
}

/// What a tracer's process used and said. `None` is not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU time while the load ran, seconds, the tracer's children not counted.
    pub cpu_s: Option<f64>,
    /// Peak resident memory, bytes.
    pub peak_rss: Option<u64>,
    /// Events that it says it received.
    pub events: Option<u64>,
    /// Events that it says it lost.
    pub lost: Option<u64>,
}

impl Contender {
    /// No tracer.
    pub fn none() -> Self {
        Self { name: "untraced".to_owned(), command: None, settle: Duration::ZERO }
    }

    /// tcptrace with these arguments.
    pub fn tcptrace(binary: &Path, args: &str) -> Self {
        let command = Some(format!("'{}' {args}", binary.display()));
        Self { name: format!("tcptrace {args}"), command, settle: Duration::from_millis(1500) }
    }

    /// Any other command.
    pub fn peer(command: &str, settle: Duration) -> Self {
        Self { name: command.to_owned(), command: Some(command.to_owned()), settle }
    }

    /// Starts it and waits until it has attached.
    pub fn start(&self) -> Result<Running> {
        let Some(command) = &self.command else { return Ok(Running { child: None, output: None }) };
        let output = tempfile::tempfile().context("cannot make a file for the tracer's output")?;
        let child = Command::new("sh")
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("cannot start {command}"))?;
        let mut running = Running { child: Some(child), output: Some(output) };
        sleep(self.settle);
        if let Some(status) = running.child.as_mut().and_then(|child| child.try_wait().transpose()) {
            bail!("{command} ended at once: {}", status?);
        }
        Ok(running)
    }
}

/// A tracer at work; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Option<Child>,
    output: Option<fs::File>,
}

impl Running {
    /// Its process; `None` for no tracer at all.
    pub fn pid(&self) -> Option<u32> {
        Some(self.child.as_ref()?.id())
    }

    /// CPU seconds used so far.
    pub fn cpu_s(&self) -> Option<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.as_ref()?.id())).ok()?;
        let fields: Vec<_> = stat.rsplit(") ").next()?.split(' ').collect();
        // utime and stime, the 14th and 15th field, in USER_HZ.
        let ticks = fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?;
        Some(f64::from(ticks) / 100.0)
    }

    /// Resident memory now, bytes.
    pub fn rss(&self) -> Option<u64> {
        rss(self.pid()?)
    }

    /// Peak of resident memory so far, bytes.
    pub fn peak_rss(&self) -> Option<u64> {
        peak_rss(self.pid()?)
    }

    /// Ends it by Ctrl-C and says what it used since `cpu_before_s`.
    pub fn stop(mut self, cpu_before_s: Option<f64>) -> Result<Usage> {
        let mut usage = Usage::default();
        let cpu_after_s = self.cpu_s();
        usage.cpu_s = cpu_after_s.zip(cpu_before_s).map(|(after, before)| after - before);
        usage.peak_rss = self.peak_rss();
        let Some(mut child) = self.child.take() else { return Ok(usage) };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("pid")?;
        kill_process(pid, Signal::INT)?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("a tracer did not end within 20 s of Ctrl-C");
            }
            sleep(Duration::from_millis(20));
        }
        if let Some(summary) = self.output.take().and_then(|file| summary(file).ok().flatten()) {
            usage.events = summary["events"].as_u64();
            let lost = |cause: &str| summary["loss"][cause].as_u64();
            usage.lost = lost("ring_full").zip(lost("skipped_runs")).map(|(ring, skipped)| ring + skipped);
        }
        Ok(usage)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Only after an error: nothing more can be done.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Resident memory of a process now, bytes.
pub fn rss(pid: u32) -> Option<u64> {
    memory(pid, "VmRSS:")
}

/// Its peak so far, bytes.
pub fn peak_rss(pid: u32) -> Option<u64> {
    memory(pid, "VmHWM:")
}

/// A line of `/proc/PID/status`, bytes.
fn memory(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// The `summary` object, the last line of what tcptrace prints with `--json`.
fn summary(mut output: fs::File) -> Result<Option<Value>> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    const TAIL: u64 = 16 << 10;
    let length = output.metadata()?.len();
    output.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    output.read_to_end(&mut tail)?;
    let last = tail.rsplit(|&byte| byte == b'\n').find(|line| !line.is_empty());
    let value = last.and_then(|line| serde_json::from_slice::<Value>(line).ok());
    Ok(value.filter(|value| value["type"] == "summary"))
}
