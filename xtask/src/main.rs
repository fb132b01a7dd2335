//! What cargo cannot do for tcptrace. One file per command; this one only picks.

mod build_ebpf;

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
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::BuildEbpf(args) => build_ebpf::run(&args).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
