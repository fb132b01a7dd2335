//! What a stack costs. Not a test of anything: run it with `--release -- --ignored --nocapture`.

use std::process::Command;
use std::time::{Duration, Instant};

use super::snapshot::{Snapshot, Target};
use super::{C, JAVASCRIPT, RUST};
use crate::stacks::Stacks;

/// The median of some runs.
fn median(runs: usize, mut run: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<_> = (0..runs).map(|_| run()).collect();
    times.sort_unstable();
    times[runs / 2]
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let value = work();
    (start.elapsed(), value)
}

/// Memory of this process that no file backs, KiB.
fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn measure(what: &str, target: Option<Target>) {
    let Some(snapshot) = target.as_ref().and_then(Target::snapshot) else { return };
    let sample = Snapshot::sample(&snapshot);
    let capture_cold = median(9, || timed(|| Stacks::default().capture(&sample).unwrap()).0);
    let both_cold = median(9, || timed(|| Stacks::default().resolve(&sample)).0);
    let mut stacks = Stacks::default();
    let capture = stacks.capture(&sample).unwrap();
    let (_, stack) = timed(|| stacks.symbolise(&capture));
    let capture_warm = median(2001, || timed(|| stacks.capture(&sample).unwrap()).0);
    let symbolise_warm = median(2001, || timed(|| stacks.symbolise(&capture)).0);
    stacks.resolve(&sample);
    let again = median(2001, || timed(|| stacks.resolve(&sample)).0);
    let kib = anonymous_kib();
    println!(
        "{what}: {} frames, {kib} KiB resident; cold: capture {capture_cold:?}, with symbols {both_cold:?}; known: capture \
         {capture_warm:?}, symbolise {symbolise_warm:?}; equal sample {again:?}",
        stack.frames.len()
    );
}

#[test]
#[ignore = "a measurement"]
fn cost() {
    measure("C", Target::run(&["gcc", "-O2", "-g"], "leaky.c", C));
    measure("Rust", Target::run(&["rustc", "--edition=2021", "-O", "-g"], "leaky.rs", RUST));
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("app.js");
    std::fs::write(&script, JAVASCRIPT).unwrap();
    let mut node = Command::new("node");
    measure("Node", Target::start(directory, node.arg("--perf-basic-prof").arg(script)));
}
