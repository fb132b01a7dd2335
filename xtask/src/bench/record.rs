//! A recording of more events than any host has: does it keep up, and what does it cost?

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::contender::Contender;
use super::program::Program;

/// Options of `bench record`.
#[derive(clap::Args)]
pub struct Args {
    /// Transitions a second that are offered
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    rate: u32,
    /// For so many seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Where to record to [default: a directory of its own for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Further arguments of `tcptrace record`
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    record: String,
}

/// Runs the benchmark and prints the table.
pub fn run(args: &Args, binary: &Path) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "tracing needs root");
    let temporary = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let temporary = temporary.context("cannot make a directory for recordings")?;
    println!(
        "{:<11} {:>10} {:>10} {:>6} {:>12} {:>12}",
        "", "offered/s", "recorded/s", "lost", "bytes/event", "CPU µs/event"
    );
    for name in ["jsonl", "jsonl.zst"] {
        record(args, binary, &temporary.path().join(format!("recording.{name}")), name)?;
    }
    Ok(())
}

fn record(args: &Args, binary: &Path, file: &Path, name: &str) -> Result<()> {
    let mut program = Program::start()?;
    let options = format!("record -o '{}' --netns {} {}", file.display(), program.pid(), args.record);
    let recorder = Contender::tcptrace(binary, &options).start()?;
    let cpu_before_s = recorder.cpu_s();
    let flipped = program.tell(&format!("flip {} {}", args.rate, args.seconds * 1000))?;
    let usage = recorder.stop(cpu_before_s)?;
    let number = |key: &str| flipped[key].as_f64().with_context(|| format!("the program said {flipped}"));
    let (transitions, elapsed_s) = (number("transitions")?, number("elapsed_ns")? / 1e9);

    let summary = summary(binary, file)?;
    let events = summary["events"].as_f64().with_context(|| format!("no events in {summary}"))?;
    let lost: u64 = summary["loss"]
        .as_object()
        .context("no loss in the summary")?
        .iter()
        .filter(|(cause, _)| *cause != "resyncs")
        .filter_map(|(_, count)| count.as_u64())
        .sum();
    println!(
        "{name:<11} {:>10.0} {:>10.0} {lost:>6} {:>12.1} {:>12}",
        transitions / elapsed_s,
        events / elapsed_s,
        fs::metadata(file)?.len() as f64 / events,
        super::figures::shown(usage.cpu_s.map(|s| format!("{:.2}", s * 1e6 / events)))
    );
    Ok(())
}

/// Of the recording, as whoever reads it sees it.
fn summary(binary: &Path, file: &Path) -> Result<Value> {
    let output = Command::new(binary).arg("report").arg("--json").arg("--from").arg(file).output()?;
    ensure!(output.status.success(), "report --from: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    Ok(serde_json::from_str(text.lines().last().context("an empty report")?)?)
}
