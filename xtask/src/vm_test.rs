//! `cargo xtask vm-test`: the core of the live tests on kernels other than the running one.
//!
//! Kernels come as Debian packages, which are unpacked and never installed; QEMU boots them without hardware
//! support, with an initramfs that holds the tests, the collector and nothing else. Virtual time follows the
//! instructions executed and skips what is idle (`-icount`), so a minute of TIME_WAIT passes in seconds, and
//! nothing that a test measures depends on how busy this machine is.

mod archive;
mod initramfs;
mod kernel;
mod machine;
mod matrix;
mod programs;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use self::kernel::{Arch, Kernel};
use self::machine::Outcome;
use self::programs::{Linked, Programs};
use crate::cargo::{root, target_dir};

/// Options of `vm-test`.
#[derive(clap::Args)]
pub struct Args {
    /// Only these kernels, as `6.1`, `newest` or `6.12-arm64`; without it all of docs/kernels.md
    #[arg(long, value_name = "KERNEL")]
    kernel: Vec<Kernel>,
    /// Write what was seen into docs/kernels.md
    #[arg(long, conflicts_with = "filter")]
    record: bool,
    /// Ask for newer packages of kernels that are here already
    #[arg(long)]
    update: bool,
    /// For machines of this one's kind, do not build static programs: take those that `cargo xtask test` runs, with
    /// the libraries that are here
    #[arg(long)]
    shared: bool,
    /// Real seconds that one machine may take
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    limit: u64,
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// Runs the command: fails when a test failed on some kernel, or a machine said nothing.
pub fn run(args: &Args) -> Result<ExitCode> {
    let kernels = if args.kernel.is_empty() { kernel::matrix() } else { args.kernel.clone() };
    let directory = target_dir()?.join("vm");
    let mut programs = BTreeMap::new();
    let mut rows = Vec::new();
    for kernel in kernels {
        println!("\n== {kernel}");
        let outcome = test(&kernel, args, &directory, &mut programs);
        rows.push((kernel, outcome));
    }
    if args.record {
        matrix::write(&root()?, &rows)?;
    }
    println!();
    for (kernel, outcome) in &rows {
        match outcome {
            Ok(outcome) => println!("{kernel}: {outcome}"),
            Err(error) => println!("{kernel}: FAILED: {error:#}"),
        }
    }
    let passed = rows.iter().all(|(_, outcome)| outcome.as_ref().is_ok_and(Outcome::is_success));
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Fetches, builds, boots. Programs are built once for an architecture.
fn test(
    kernel: &Kernel,
    args: &Args,
    directory: &Path,
    programs: &mut BTreeMap<Arch, Programs>,
) -> Result<Outcome> {
    machine::find_emulator(kernel.arch)?;
    let unpacked = archive::kernel(kernel, directory, args.update)?;
    println!("  {}", unpacked.package);
    let programs = match programs.entry(kernel.arch) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(unknown) => {
            let linked = if args.shared && kernel.arch.is_native() { Linked::Shared } else { Linked::Static };
            unknown.insert(Programs::build(kernel.arch, linked)?)
        }
    };
    let initramfs = directory.join(format!("{kernel}.cpio"));
    let archive = initramfs::of(programs, &unpacked.modules, args.filter.as_deref())?;
    fs::write(&initramfs, archive).with_context(|| format!("write {}", initramfs.display()))?;
    let log = directory.join(format!("{kernel}.log"));
    machine::run(kernel, &unpacked.image, &initramfs, &log, Duration::from_secs(args.limit))
}
