//! Running the compiler.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::toolchain::{Kind, TARGET, Toolchain, cargo_home};

/// Separates flags in CARGO_ENCODED_RUSTFLAGS, so that a path may hold spaces.
const FLAG_SEPARATOR: &str = "\x1f";

/// Variables that the cargo which runs this command, or its user, set for another build.
const FOREIGN_PREFIXES: [&str; 5] = ["CARGO", "RUSTC", "RUSTFLAGS", "RUSTDOC", "RUSTUP_TOOLCHAIN"];
/// Those of them that say where crates come from, and stay.
const KEPT_PREFIXES: [&str; 5] =
    ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_"];

/// Compiles the crate below `root` and returns the stripped object.
pub fn compile(root: &Path, toolchain: &Toolchain) -> Result<Vec<u8>> {
    let directory = root.join("tcptrace-ebpf");
    // Fetched first, so that the registry's directories are there to be remapped.
    run(cargo(toolchain, &directory).args(["fetch", "--locked"]))?;
    let mut build = cargo(toolchain, &directory);
    build.args(["build", "--release", "--locked", "--target", TARGET]);
    if toolchain.kind == Kind::Nightly {
        build.arg("-Zbuild-std=core");
    }
    build.env("CARGO_ENCODED_RUSTFLAGS", flags(root, toolchain)?.join(FLAG_SEPARATOR));
    run(&mut build).with_context(|| {
        format!(
            "compile with {}; if bpf-linker speaks of an invalid record, it was built with an older LLVM than the \
             compiler's",
            toolchain.description()
        )
    })?;

    let built = directory.join("target").join(TARGET).join("release");
    let stripped = built.join("tcptrace.bpf.o");
    // The DWARF sections go, BTF stays.
    run(Command::new(&toolchain.strip).arg("-g").arg("-o").arg(&stripped).arg(built.join("tcptrace")))?;
    let object = fs::read(&stripped).with_context(|| format!("read {}", stripped.display()))?;
    if let Some(symbol) = mangled_symbol(&object) {
        bail!(
            "symbol {symbol} carries a hash of the directory, so the object would differ from one directory to \
             the next: give the function #[unsafe(no_mangle)] or inline it"
        );
    }
    Ok(object)
}

/// A mangled Rust name in one of the object's string tables. Cargo hashes the absolute path of a dependency outside
/// the workspace (tcptrace-common) into such names.
fn mangled_symbol(object: &[u8]) -> Option<String> {
    object
        .split(|&byte| byte == 0)
        .find(|text| text.starts_with(b"_RN") || text.starts_with(b"_ZN"))
        .map(|text| String::from_utf8_lossy(text).into_owned())
}

/// cargo in `directory`, with nothing of the surrounding build.
fn cargo(toolchain: &Toolchain, directory: &Path) -> Command {
    let mut command = Command::new(&toolchain.cargo);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| text.starts_with(prefix));
        if starts(&FOREIGN_PREFIXES) && !starts(&KEPT_PREFIXES) {
            command.env_remove(&name);
        }
    }
    command
        .current_dir(directory)
        .env("RUSTC", &toolchain.rustc)
        .env("CARGO_TARGET_DIR", directory.join("target"))
        // `asm_experimental_arch`, which aya-ebpf uses, is not stable.
        .env("RUSTC_BOOTSTRAP", "1");
    command
}

fn flags(root: &Path, toolchain: &Toolchain) -> Result<Vec<String>> {
    let mut flags = vec![
        format!("-Clinker={}", toolchain.linker.display()),
        "-Clink-arg=--btf".to_owned(),
        // Unsigned and 64-bit compares; every kernel with a ring buffer has them.
        "-Ctarget-cpu=v2".to_owned(),
    ];
    let mut remap = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    remap(root, "/src");
    remap(&toolchain.sysroot.join("lib/rustlib/src/rust"), "/rust");
    remap(&Path::new("/rustc").join(&toolchain.commit), "/rust");
    for registry in registries()? {
        remap(&registry, "/cargo");
    }
    Ok(flags)
}

/// The directories that crates are unpacked to; their names carry a hash of the registry's address.
fn registries() -> Result<Vec<PathBuf>> {
    let sources = cargo_home()?.join("registry/src");
    let what = || format!("read {}", sources.display());
    let mut registries = Vec::new();
    for entry in fs::read_dir(&sources).with_context(what)? {
        registries.push(entry.with_context(what)?.path());
    }
    registries.sort();
    Ok(registries)
}

fn run(command: &mut Command) -> Result<()> {
    // The arguments suffice to run it by hand; its environment would fill the screen.
    let args = command.get_args().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let line = format!("`{} {args}`", command.get_program().to_string_lossy());
    let status = command.status().with_context(|| format!("run {line}"))?;
    if !status.success() {
        bail!("{line} failed: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mangled_names_are_found_in_string_tables_only() {
        let object = b"\x7fELF\0memset\0_RNvNtCsabc_8tcptrace4ring3log\0CONFIG\0";
        assert_eq!(mangled_symbol(object).as_deref(), Some("_RNvNtCsabc_8tcptrace4ring3log"));
        assert_eq!(mangled_symbol(b"\0memset\0log_RNfailure\0"), None);
    }
}
