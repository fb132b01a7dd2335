//! What an event costs in user space as the host grows: replayed records through decode, tracker and statistics, with
//! more and more connections open, of more and more processes, in more and more namespaces.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::figures::{median, range};
use super::growth_svg;

/// Options of `bench growth`.
#[derive(clap::Args)]
pub struct Args {
    /// Rounds; in each, every size is measured once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Slices of a measurement; the medians are of those of all rounds
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    slices: u32,
    /// Draws the medians into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// One thing that grows.
pub struct Axis {
    /// What, in the plural.
    pub what: &'static str,
    option: &'static str,
    /// Each size, with nanoseconds for an event in each slice.
    pub points: Vec<(u32, Vec<f64>)>,
}

impl Axis {
    fn new(what: &'static str, option: &'static str, sizes: &[u32]) -> Self {
        Self { what, option, points: sizes.iter().map(|&size| (size, Vec::new())).collect() }
    }
}

/// Runs the benchmark and prints the tables.
pub fn run(args: &Args, binary: &Path) -> Result<()> {
    let mut axes = [
        Axis::new("TIME_WAITs open", "--open", &[1_000, 10_000, 100_000, 1_000_000]),
        Axis::new("processes", "--processes", &[10, 100, 1_000, 10_000]),
        Axis::new("network namespaces", "--namespaces", &[1, 10, 100, 500]),
    ];
    for round in 1..=args.rounds {
        for axis in &mut axes {
            for (size, slices) in &mut axis.points {
                slices.extend(measure(binary, axis.option, *size, args.slices)?);
            }
        }
        eprintln!("round {round} of {}", args.rounds);
    }
    println!("{} slices for each size, CPU-bound on one core", args.rounds * args.slices);
    for axis in &axes {
        println!("{:>24}  {:>12}  {:>18}", axis.what, "an event", "range");
        for (size, slices) in &axis.points {
            let middle = median(slices).context("no slices")?;
            let (least, greatest) = range(slices).context("no slices")?;
            println!(
                "{size:>24}  {:>12}  {:>18}",
                format!("{middle:.0} ns"),
                format!("{least:.0}–{greatest:.0}")
            );
        }
        println!("{:>24}  {:+.0} ns for each tenfold", "", slope(&axis.points)?);
    }
    if let Some(file) = &args.svg {
        std::fs::write(file, growth_svg::draw(&axes))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Nanoseconds for an event, slice by slice.
fn measure(binary: &Path, option: &str, size: u32, slices: u32) -> Result<Vec<f64>> {
    let output = Command::new(binary)
        .args(["__replay", option, &size.to_string(), "--slices", &slices.to_string()])
        .output()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let replayed: Value = serde_json::from_slice(&output.stdout)?;
    let slices = replayed["ns_per_event"].as_array().context("no slices")?;
    Ok(slices.iter().filter_map(Value::as_f64).collect())
}

/// By how much the median grows with each tenfold: the straight line through all points that misses them least.
fn slope(points: &[(u32, Vec<f64>)]) -> Result<f64> {
    let points = points.iter().map(|(size, slices)| Some((f64::from(*size).log10(), median(slices)?)));
    let points: Vec<_> = points.collect::<Option<_>>().context("no slices")?;
    let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / points.len() as f64;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let along: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let across: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    Ok(along / across)
}

/// Two axes with two points each.
#[cfg(test)]
pub fn example() -> [Axis; 2] {
    let mut axes = [Axis::new("things", "--things", &[1, 1000]), Axis::new("others", "--others", &[10, 500])];
    for axis in &mut axes {
        for ((_, slices), ns) in axis.points.iter_mut().zip([120.0, 180.0]) {
            slices.push(ns);
        }
    }
    axes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_straight_line_has_its_own_slope() {
        let points = [(10, vec![100.0]), (100, vec![130.0]), (1000, vec![160.0, 160.0])];
        assert!((slope(&points).unwrap() - 30.0).abs() < 1e-9);
    }
}
