//! `cargo xtask run`: builds tcptrace and becomes it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::cargo::{build_tcptrace, find_in_path};

/// Options of `run`.
#[derive(clap::Args)]
pub struct Args {
    /// Arguments of tcptrace
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Builds as an ordinary user, runs as root; signals and the exit status are tcptrace's own, for this process
/// becomes it.
pub fn run(args: &Args) -> Result<ExitCode> {
    let program = build_tcptrace(true)?;
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new(program)
    } else {
        let Some(sudo) = find_in_path("sudo") else {
            bail!(
                "tracing needs root and there is no sudo: run this as root, or {} by hand",
                program.display()
            );
        };
        let mut command = Command::new(sudo);
        command.arg("--").arg(program);
        command
    };
    command.args(&args.args);
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {command:?}"))
}
