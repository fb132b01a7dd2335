//! One binary that needs nothing of the system it runs on but a kernel.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::output;
use crate::cargo::{cargo, executables};

/// The target triple of this machine.
pub fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = output(std::process::Command::new(rustc).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV does not name its host")
}

/// Builds tcptrace with the C library linked in, the same bytes from every directory and in every one.
pub fn build(root: &Path, target: &Path) -> Result<PathBuf> {
    let cargo_home = cargo_home()?;
    // The last that matches holds, and what build scripts write mostly lies below the sources.
    let prefixes = [(root, "/src"), (cargo_home.as_path(), "/cargo"), (target, "/target")];
    let remap = |option: &str| {
        let one = |(from, to): (&Path, &str)| format!("{option}={}={to}", from.display());
        prefixes.map(one)
    };
    let mut rust = vec!["-Ctarget-feature=+crt-static".to_owned()];
    rust.extend(remap("--remap-path-prefix"));
    let mut command = cargo();
    command
        .current_dir(root)
        .args(["build", "--release", "--locked", "--package", "tcptrace", "--bin", "tcptrace"])
        // With a target named, build scripts and macros are built without these flags.
        .args(["--target", &host()?])
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_ENCODED_RUSTFLAGS", rust.join("\u{1f}"))
        // The names by which thin LTO hands functions from one crate to another carry a hash that is not the same in every
        // directory.
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        // C code of dependencies carries __FILE__ of its assertions.
        .env("CFLAGS", remap("-ffile-prefix-map").join(" "));
    let mut built = executables(&mut command)?;
    built.pop().map(|(_, path)| path).context("cargo did not say where the executable is")
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    Ok(PathBuf::from(std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?).join(".cargo"))
}
