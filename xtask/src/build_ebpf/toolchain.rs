//! Finding a compiler that can make BPF.

use std::{
    env,
    ffi::OsStr,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// The target: little-endian BPF, the same for x86-64 and aarch64.
pub const TARGET: &str = "bpfel-unknown-none";

/// What to install, for the message when something is missing.
const INSTALL: &str = "install one of\n\
    - Debian 12 or later:\n    \
        apt-get install rustc-web libstd-rust-web-dev-bpf llvm-22-dev\n    \
        LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --locked \
        --no-default-features --features llvm-22\n\
    - elsewhere, with rustup:\n    \
        rustup toolchain install nightly --component rust-src --component llvm-tools\n    \
        cargo binstall bpf-linker (its LLVM must be at least as new as the compiler's)";

/// Where the compiler comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The distribution's rustc with its compiled core library for BPF
    Debian,
    /// rustup's nightly with rust-src, which compiles the core library too
    Nightly,
}

/// Everything that the build runs.
pub struct Toolchain {
    /// Where the compiler comes from.
    pub kind: Kind,
    /// The compiler.
    pub rustc: PathBuf,
    /// The cargo that drives it.
    pub cargo: PathBuf,
    /// The compiler's directory of libraries and sources.
    pub sysroot: PathBuf,
    /// The compiler's commit, part of the paths that its own core library was compiled under.
    pub commit: String,
    /// The linker, which also makes the BTF.
    pub linker: PathBuf,
    /// What strips the debugging sections.
    pub strip: PathBuf,
    versions: Vec<String>,
}

impl Toolchain {
    /// Finds `wanted`, or the first kind that is complete. Says what is missing and what to install.
    pub fn find(wanted: Option<Kind>) -> Result<Self> {
        let kinds = wanted.map_or_else(|| vec![Kind::Debian, Kind::Nightly], |kind| vec![kind]);
        let mut missing = String::new();
        for kind in kinds {
            match Self::find_kind(kind) {
                Ok(toolchain) => return Ok(toolchain),
                Err(error) => write!(missing, "\n- {kind:?}: {error:#}")?,
            }
        }
        bail!("no toolchain here can compile for BPF:{missing}\n{INSTALL}")
    }

    fn find_kind(kind: Kind) -> Result<Self> {
        let (rustc, cargo) = match kind {
            Kind::Debian => (PathBuf::from("/usr/bin/rustc"), real_cargo()?),
            Kind::Nightly => (nightly("rustc")?, nightly("cargo")?),
        };
        if !rustc.exists() {
            bail!("no {}", rustc.display());
        }
        let sysroot = PathBuf::from(output(&rustc, &["--print", "sysroot"])?);
        let core = match kind {
            Kind::Debian => sysroot.join("lib/rustlib").join(TARGET),
            Kind::Nightly => sysroot.join("lib/rustlib/src/rust/library/core"),
        };
        if !core.exists() {
            bail!("no {}", core.display());
        }
        let verbose = output(&rustc, &["-vV"])?;
        let says = |key: &str| {
            verbose.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("unknown").trim().to_owned()
        };
        let directories = search_path(&sysroot, &says("host:"));
        let linker = in_path(&directories, |name| name == "bpf-linker").context("no bpf-linker in PATH")?;
        let strip = in_path(&directories, |name| name == "llvm-strip" || name.starts_with("llvm-strip-"))
            .context("no llvm-strip in PATH")?;
        let versions = vec![
            format!("{kind:?} {}", verbose.lines().next().unwrap_or("rustc")),
            format!("LLVM {}", says("LLVM version:")),
            output(&linker, &["--version"])?,
            version_line(&output(&strip, &["--version"])?),
        ];
        Ok(Self { kind, rustc, cargo, sysroot, commit: says("commit-hash:"), linker, strip, versions })
    }

    /// One line for the user.
    pub fn description(&self) -> String {
        self.versions.join(", ")
    }

    /// A line for each tool: with the same lines the same bytes come out.
    pub fn versions(&self) -> &[String] {
        &self.versions
    }
}

/// `llvm-strip --version` prints several lines; one of them has the number.
fn version_line(text: &str) -> String {
    let line = text.lines().find(|line| line.contains("version")).unwrap_or(text);
    format!("llvm-strip {}", line.rsplit("version").next().unwrap_or(line).trim())
}

/// The cargo that runs this command, past rustup's proxy. With `RUSTC` set it drives any compiler.
fn real_cargo() -> Result<PathBuf> {
    env::var_os("CARGO")
        .filter(|cargo| !cargo.is_empty())
        .map(PathBuf::from)
        .context("CARGO is not set: run this as `cargo xtask build-ebpf`")
}

/// A tool of rustup's nightly.
fn nightly(tool: &str) -> Result<PathBuf> {
    output(Path::new("rustup"), &["which", "--toolchain", "nightly", tool]).map(PathBuf::from)
}

/// PATH, where `cargo install` puts programs, and where rustup's llvm-tools component is.
fn search_path(sysroot: &Path, host: &str) -> Vec<PathBuf> {
    let mut directories: Vec<_> =
        env::var_os("PATH").iter().flat_map(|path| env::split_paths(path).collect::<Vec<_>>()).collect();
    if let Ok(home) = cargo_home() {
        directories.push(home.join("bin"));
    }
    directories.push(sysroot.join("lib/rustlib").join(host).join("bin"));
    directories
}

/// Cargo's home, as cargo itself finds it.
pub fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME").filter(|home| !home.is_empty()) {
        return Ok(home.into());
    }
    env::home_dir().map(|home| home.join(".cargo")).context("neither CARGO_HOME nor HOME is set")
}

/// The program whose name `matches`; of several versions (`llvm-strip-14`, `-22`) the highest, so that the
/// choice does not depend on the order of a directory.
fn in_path(directories: &[PathBuf], matches: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let names = directories.iter().filter_map(|directory| fs::read_dir(directory).ok()).flatten().flatten();
    names
        .filter(|entry| entry.file_name().to_str().is_some_and(&matches))
        .map(|entry| entry.path())
        .max_by_key(|path| {
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            name.rsplit('-').next().and_then(|version| version.parse::<u32>().ok())
        })
}

/// A program's standard output, trimmed.
fn output(program: &Path, args: &[&str]) -> Result<String> {
    let what = || format!("`{} {}`", program.display(), args.join(" "));
    let output = Command::new(program)
        .args(args)
        .env_remove("RUSTUP_TOOLCHAIN")
        .output()
        .with_context(|| format!("run {}", what()))?;
    if !output.status.success() {
        bail!("{} failed: {}", what(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn highest_version_wins() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["llvm-strip", "llvm-strip-9", "llvm-strip-22", "llvm-stripper", "other"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let found = in_path(&[directory.path().to_path_buf()], |name| {
            name == "llvm-strip" || name.starts_with("llvm-strip-")
        });
        assert_eq!(found, Some(directory.path().join("llvm-strip-22")));
    }

    #[test]
    fn version_is_found_among_the_lines() {
        assert_eq!(
            version_line("llvm-strip, compatible with GNU strip\nDebian LLVM version 22.1.8"),
            "llvm-strip 22.1.8"
        );
    }
}
