//! What runs inside a machine: the live tests, the collector under test, and the first process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::kernel::Arch;
use crate::cargo::{build_tcptrace, cargo, executables, find_in_path};

/// How programs come by the C library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linked {
    /// They contain it: built for this alone, for any architecture.
    Static,
    /// They bring this machine's, whose kind the machine must be of: the builds that other tests use.
    Shared,
}

/// Files by their path inside.
pub struct Programs(BTreeMap<String, PathBuf>);

impl Programs {
    /// Builds them.
    pub fn build(arch: Arch, linked: Linked) -> Result<Self> {
        let mut programs = match linked {
            Linked::Static => build_static(arch)?,
            Linked::Shared => build_shared()?,
        };
        // The tests compare with it where they find it.
        if let Some(ss) = arch.is_native().then(|| find_in_path("ss")).flatten() {
            programs.insert("bin/ss".to_owned(), ss);
        }
        let mut libraries = BTreeMap::new();
        for file in programs.values() {
            libraries.extend(libraries_of(file, arch)?);
        }
        programs.extend(libraries);
        Ok(Self(programs))
    }

    /// Path inside, file outside.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.0.iter().map(|(path, file)| (path.as_str(), file.as_path()))
    }
}

/// Named inside as `vm_init` knows them.
fn name_inside(found: Vec<(String, PathBuf)>) -> Result<BTreeMap<String, PathBuf>> {
    let mut programs = BTreeMap::new();
    for (name, path) in [("tcptrace", "bin/tcptrace"), ("live", "bin/live"), ("vm_init", "init")] {
        let program = found.iter().find(|(found, _)| found == name);
        let (_, file) = program.with_context(|| format!("cargo did not say where {name} is"))?;
        programs.insert(path.to_owned(), file.clone());
    }
    Ok(programs)
}

const TESTS: [&str; 6] = ["--package", "tests", "--test", "live", "--bin", "vm_init"];

fn build_shared() -> Result<BTreeMap<String, PathBuf>> {
    let mut found = vec![("tcptrace".to_owned(), build_tcptrace(true)?)];
    // As `cargo test --package tests` builds them.
    found.extend(executables(cargo().arg("build").args(TESTS))?);
    name_inside(found)
}

fn build_static(arch: Arch) -> Result<BTreeMap<String, PathBuf>> {
    let mut command = cargo();
    command.args(["build", "--profile", "vm", "--target", arch.target()]);
    command.args(["--package", "tcptrace", "--bin", "tcptrace"]).args(TESTS);
    let variable = arch.target().replace('-', "_");
    let of_cargo = format!("CARGO_TARGET_{}", variable.to_uppercase());
    command.env(format!("{of_cargo}_RUSTFLAGS"), "-Ctarget-feature=+crt-static");
    if !arch.is_native() {
        let (gcc, package) = match arch {
            Arch::Amd64 => ("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu"),
            Arch::Arm64 => ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
        };
        let (debian, target) = (arch.debian(), arch.target());
        ensure!(
            find_in_path(gcc).is_some(),
            "no {gcc}: apt-get install {package} libc6-dev-{debian}-cross, and rustup target add {target}"
        );
        command.env(format!("{of_cargo}_LINKER"), gcc).env(format!("CC_{variable}"), gcc);
    }
    name_inside(executables(&mut command)?)
}

/// The shared libraries of a program, and the loader, by the path that they are looked for at.
fn libraries_of(program: &Path, arch: Arch) -> Result<BTreeMap<String, PathBuf>> {
    if !arch.is_native() {
        return Ok(BTreeMap::new());
    }
    // Fails, and says so on standard output, for what is linked statically.
    let output = Command::new("ldd").arg(program).stderr(Stdio::null()).output().context("ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, and the loader without an arrow.
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(|path| (path.trim_start_matches('/').to_owned(), PathBuf::from(path))).collect())
}
