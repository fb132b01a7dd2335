//! The table of docs/kernels.md.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::kernel::Kernel;
use super::machine::Outcome;

const FILE: &str = "docs/kernels.md";
/// The table stands between these lines; the rest of the file is written by people.
const BEGIN: &str = "<!-- made by `cargo xtask vm-test` -->\n";
const END: &str = "<!-- end of what it made -->\n";

/// Writes what was seen into the file below `root`.
pub fn write(root: &Path, rows: &[(Kernel, Result<Outcome>)]) -> Result<()> {
    let path = root.join(FILE);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("{FILE} has no {BEGIN:?}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{FILE} has no {END:?}"))?;
    Ok(fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", table(rows)))?)
}

fn table(rows: &[(Kernel, Result<Outcome>)]) -> String {
    let mut table =
        "| Linux | machine | HZ | TIME_WAIT lasted | the wheel allows | does without | passed | failed | skipped |\n\
                     |---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for (kernel, outcome) in rows {
        let arch = kernel.arch.debian();
        let Ok(Outcome { release, hz, count, time_wait, refused, .. }) = outcome else {
            let _ = writeln!(table, "| {} | {arch} | | | | | did not come to its end | | |", kernel.series);
            continue;
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
        let _ = writeln!(
            table,
            "| {release} | {arch} | {hz} | {lasted} | {allowed} | {} | {} | {} | {} |",
            without.join(", "),
            count.passed,
            count.failed,
            count.skipped
        );
    }
    table
}
