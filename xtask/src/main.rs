//! What cargo cannot do for tcptrace. One file per command; this one only picks.

mod bench;
mod build_ebpf;
mod cargo;
mod dist;
mod run;
mod test;
mod vm_test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What cargo cannot do for tcptrace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compile the BPF object from source and put it beside it, or check the committed one
    BuildEbpf(build_ebpf::Args),
    /// Build tcptrace and run it, through sudo when not root: `cargo xtask run -- demo`
    Run(run::Args),
    /// Every test: units, scenarios, command line, and the live ones when root
    Test(test::Args),
    /// The core of the live tests on other kernels, in virtual machines
    VmTest(vm_test::Args),
    /// Make what is handed out: a static binary in a tarball, a Debian package, a bill of materials
    Dist(dist::Args),
    /// Measure what tracing costs
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::BuildEbpf(args) => build_ebpf::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Run(args) => run::run(&args),
        Command::Test(args) => test::run(&args),
        Command::VmTest(args) => vm_test::run(&args),
        Command::Dist(args) => dist::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Bench(bench) => bench::run(&bench).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
