//! Calling cargo, and finding other programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// The cargo that runs this.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Cargo tells a program that it runs which package that is of. Build scripts that look at the same variables
    // (ring's does) would take it for a change, and what depends on them be compiled again at every turn.
    for (name, _) in std::env::vars_os() {
        if [b"CARGO_PKG_".as_slice(), b"CARGO_MANIFEST_"]
            .iter()
            .any(|of| name.as_encoded_bytes().starts_with(of))
        {
            command.env_remove(name);
        }
    }
    command
}

/// The workspace root: where this crate's directory is.
pub fn root() -> Result<PathBuf> {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().map(Path::to_path_buf).with_context(|| format!("{} has no parent", xtask.display()))
}

/// Where cargo puts what it builds.
pub fn target_dir() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => Ok(std::path::absolute(directory)?),
        None => Ok(root()?.join("target")),
    }
}

/// Builds the tcptrace binary, showing cargo's progress, and says where it is.
pub fn build_tcptrace(release: bool) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--package", "tcptrace", "--bin", "tcptrace"]);
    if release {
        command.arg("--release");
    }
    let mut built = executables(&mut command)?;
    built.pop().map(|(_, path)| path).context("cargo did not say where the executable is")
}

/// Runs a build, showing cargo's progress; names and places of the executables that it made.
pub fn executables(command: &mut Command) -> Result<Vec<(String, PathBuf)>> {
    command.args(["--message-format", "json-render-diagnostics"]);
    let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("{command:?} failed with {}", output.status);
    }
    let built = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| {
            let executable = message["executable"].as_str()?;
            Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(executable)))
        })
        .collect();
    Ok(built)
}

/// Where a program is that this machine may have.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}
