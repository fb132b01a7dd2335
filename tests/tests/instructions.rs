//! How many instructions an event takes in user space, from its record to the histograms: counted by callgrind, so that
//! the figure is the same on a busy machine. It guards against what makes the hot path dearer without anybody's notice,
//! and is kept current by failing when it is far too high, too.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use tests::binary;

/// The committed figure: instructions for an event, of a release build for x86-64.
const FIGURE: &str = "instructions.txt";
/// Compilers differ by less, and what is worth a look by more.
const TOLERANCE: f64 = 0.05;
/// Set, the figure is written instead of compared.
const UPDATE: &str = "TCPTRACE_UPDATE_INSTRUCTIONS";

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trial = Trial::test("instructions_of_an_event_are_as_committed", || {
        are_as_committed().map_err(|error| format!("{error:#}").into())
    });
    let obstacle = obstacle();
    if let Some(obstacle) = &obstacle {
        println!("SKIPPED {}: {obstacle}", trial.name());
    }
    libtest_mimic::run(&arguments, vec![trial.with_ignored_flag(obstacle.is_some())]).exit_code()
}

/// Why it cannot be counted here; `None` where it can.
fn obstacle() -> Option<&'static str> {
    if !cfg!(target_arch = "x86_64") {
        Some("the figure is of x86-64")
    } else if std::env::var_os("TCPTRACE_BIN").is_none() {
        Some("the figure is of a release build, which `cargo xtask test` makes")
    } else if Command::new("valgrind").arg("--version").output().is_err() {
        Some("valgrind is not installed")
    } else {
        None
    }
}

fn are_as_committed() -> Result<()> {
    // What comes before the slices is the same in both.
    let (few, many) = (counted(2)?, counted(12)?);
    let (instructions, events) = (many.0 - few.0, many.1 - few.1);
    ensure!(events > 50_000.0 && instructions > events, "{instructions} instructions, {events} events");
    let found = instructions / events;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FIGURE);
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&file, format!("{found:.0}\n"))?;
        println!("{found:.1} instructions an event, written to {}", file.display());
        return Ok(());
    }
    let committed: f64 = std::fs::read_to_string(&file)?.trim().parse()?;
    println!("{found:.1} instructions an event; {committed} are committed");
    ensure!(
        (found / committed - 1.0).abs() <= TOLERANCE,
        "{found:.1} instructions an event, where {committed} are committed in tests/{FIGURE}. If that is meant, \
         {UPDATE}=1 cargo xtask test --live instructions writes the new figure"
    );
    Ok(())
}

/// Instructions in the hot path, and events, of a replay of so many slices.
fn counted(slices: u32) -> Result<(f64, f64)> {
    let dir = tempfile::tempdir()?;
    let out: PathBuf = dir.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*workload*records*feed*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(binary::path())
        .args(["__replay", "--open", "2000", "--connections", "640", "--slices", &slices.to_string()])
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{stderr}");
    let replayed: Value = serde_json::from_slice(&output.stdout)?;
    let totals = std::fs::read_to_string(&out)?;
    let total = totals.lines().find_map(|line| line.strip_prefix("totals: "));
    let total = total.with_context(|| format!("no totals; {stderr}"))?.trim().parse()?;
    Ok((total, replayed["events"].as_f64().context("no number of events")?))
}
