//! The table of docs/kernels.md.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::kernel::{self, Kernel};
use super::machine::Outcome;
use crate::test::Count;

const FILE: &str = "docs/kernels.md";
/// The table stands between these lines; the rest of the file is written by people.
const BEGIN: &str = "<!-- made by `cargo xtask vm-test` -->\n";
const END: &str = "<!-- end of what it made -->\n";

/// Before the rows.
const HEAD: &str = "| series | machine | Linux | HZ | TIME_WAIT lasted | the wheel allows | programs | does without | passed | failed | skipped |\n\
     |---|---|---|---|---|---|---|---|---|---|---|\n";

/// Writes what was seen into the file below `root`: the rows of these kernels, and leaves those of others.
pub fn write(root: &Path, rows: &[(Kernel, Result<Outcome>)]) -> Result<()> {
    let path = root.join(FILE);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("{FILE} has no {BEGIN:?}"))?;
    let (known, after) = rest.split_once(END).with_context(|| format!("{FILE} has no {END:?}"))?;
    let mut table = HEAD.to_owned();
    let mut kernels = kernel::matrix();
    kernels.extend(
        rows.iter().map(|(kernel, _)| kernel.clone()).filter(|kernel| !kernel::matrix().contains(kernel)),
    );
    for kernel in kernels {
        let seen = rows.iter().find(|(seen, _)| *seen == kernel).map(|(_, outcome)| row(&kernel, outcome));
        let before =
            || known.lines().find(|line| line.starts_with(&key(&kernel))).map(|line| format!("{line}\n"));
        table += &seen.or_else(before).unwrap_or_default();
    }
    Ok(fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}"))?)
}

/// How its row begins.
fn key(kernel: &Kernel) -> String {
    format!("| {} | {} |", kernel.series, kernel.arch.debian())
}

fn row(kernel: &Kernel, outcome: &Result<Outcome>) -> String {
    let key = key(kernel);
    let Ok(Outcome { release, hz, count, time_wait, tracers, refused, .. }) = outcome else {
        return format!("{key} did not come to its end | | | | | | | | |\n");
    };
    let seconds = |ns: u64| format!("{:.3}", ns as f64 / 1e9);
    let range = |from, to| format!("{}–{} s", seconds(from), seconds(to));
    let (lasted, allowed) = match time_wait {
        None => ("not seen".to_owned(), String::new()),
        Some(of) => (
            format!("{} ({})", range(of.shortest_ns, of.longest_ns), of.count),
            range(of.at_least_ns, of.at_most_ns),
        ),
    };
    let without: Vec<_> = refused.iter().map(|hook| format!("`{}`", hook.program)).collect();
    let (without, Count { passed, failed, skipped }) = (without.join(", "), count);
    let programs = tracers.map_or_else(|| "not seen".to_owned(), |tracers| tracers.to_string());
    format!(
        "{key} {release} | {hz} | {lasted} | {allowed} | {programs} | {without} | {passed} | {failed} | {skipped} |\n"
    )
}
