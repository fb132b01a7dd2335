//! `cargo xtask test`: everything that can be tested here, with one count at the end.

use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::AddAssign;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};

use crate::cargo::{build_tcptrace, cargo};

/// Options of `test`.
#[derive(clap::Args)]
pub struct Args {
    /// Leave out the live tests
    #[arg(long)]
    no_live: bool,
    /// Only the live tests
    #[arg(long, conflicts_with = "no_live")]
    live: bool,
    /// Run the live tests on a debug build: quicker to build, and too slow for some loads
    #[arg(long)]
    debug: bool,
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// What test runners counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Did what they should.
    pub passed: u64,
    /// Did not.
    pub failed: u64,
    /// Could not run here.
    pub skipped: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Runs the command. The last line is the count of all.
pub fn run(args: &Args) -> Result<ExitCode> {
    let filter = args.filter.as_slice();
    let mut stages = Vec::new();
    let mut repeated = Vec::new();
    if !args.live {
        let mut command = cargo();
        command.args(["test", "--workspace", "--exclude", "tests", "--no-fail-fast"]).args(filter);
        stages.push(("units, scenarios and command line", stage(&mut command)?.0));
    }
    if !args.no_live {
        // What is tested is what is shipped.
        let binary = build_tcptrace(!args.debug)?;
        let mut command = cargo();
        command.args(["test", "--package", "tests", "--no-fail-fast"]).args(filter);
        let (mut count, failed) = stage(command.env("TCPTRACE_BIN", &binary))?;
        repeated = repeat(&failed, &binary, &mut count)?;
        stages.push(("live", count));
    }
    let mut sum = Count::default();
    println!();
    for (name, count) in stages {
        println!("{name}: {count}");
        sum += count;
    }
    for name in repeated {
        println!("PASSED ONLY WHEN REPEATED BY ITSELF: {name}; find out why");
    }
    println!("{sum}");
    Ok(if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a test command, showing its output as it comes. A command that fails without counting a failure (it
/// did not compile, it was killed) counts as one.
fn stage(command: &mut Command) -> Result<(Count, Vec<String>)> {
    println!("> {command:?}");
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {command:?}"))?;
    let mut count = Count::default();
    let mut failed = Vec::new();
    let mut out = std::io::stdout().lock();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("cannot read the tests' output")?;
            out.write_all(&line)?;
            out.write_all(b"\n")?;
            let line = String::from_utf8_lossy(&line);
            count += self::count(&line).unwrap_or_default();
            failed.extend(failed_test(&line).map(str::to_owned));
        }
    }
    let status = child.wait()?;
    if !status.success() && count.failed == 0 {
        println!("{command:?} ended with {status} without naming a failed test");
        count.failed = 1;
    }
    Ok((count, failed))
}

/// More live trials than this do not fail for want of a processor at the wrong moment.
const REPEATED_AT_MOST: usize = 4;

/// Live trials measure time on machines that others share, and some kernels keep events from everybody now and
/// then: one that failed among all others gets a second chance by itself. Those that needed it are named in the
/// summary, because each is a defect of the trial or worse.
fn repeat(failed: &[String], binary: &Path, count: &mut Count) -> Result<Vec<String>> {
    let mut repeated = Vec::new();
    if failed.len() as u64 != count.failed || failed.len() > REPEATED_AT_MOST {
        return Ok(repeated);
    }
    for name in failed {
        let mut command = cargo();
        command.args(["test", "--package", "tests", "--", "--exact", name]);
        let (again, _) = stage(command.env("TCPTRACE_BIN", binary))?;
        if again.passed == 1 && again.failed == 0 {
            count.failed -= 1;
            count.passed += 1;
            repeated.push(name.clone());
        }
    }
    Ok(repeated)
}

/// `test NAME ... FAILED`.
pub fn failed_test(line: &str) -> Option<&str> {
    Some(line.strip_prefix("test ")?.strip_suffix("FAILED")?.trim_end().strip_suffix("...")?.trim_end())
}

/// `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; …`, as libtest and its likes print it.
pub fn count(line: &str) -> Option<Count> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |what: &str| {
        counts.split("; ").find_map(|part| part.strip_suffix(what)?.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    Some(Count { passed: number("passed"), failed: number("failed"), skipped: number("ignored") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_tests_are_named() {
        assert_eq!(failed_test("test close_wait_ended             ... FAILED"), Some("close_wait_ended"));
        assert_eq!(failed_test("test close_wait_ended ... ok"), None);
        assert_eq!(failed_test("test result: FAILED. 1 passed"), None);
    }

    #[test]
    fn the_runners_own_line_is_understood() {
        let line =
            "test result: FAILED. 12 passed; 2 failed; 3 ignored; 0 measured; 7 filtered out; finished in 1s";
        assert_eq!(count(line), Some(Count { passed: 12, failed: 2, skipped: 3 }));
        assert_eq!(
            count("test result: \u{1b}[32mok\u{1b}[0m. 1 passed; 0 failed; 0 ignored").unwrap().passed,
            1
        );
        assert_eq!(count("test live ... ok"), None);
    }
}
