//! `cargo xtask dist`: what is handed out. The same bytes come out in every directory and at any time: paths are
//! remapped, times are those of the last commit, and what is packed is sorted.

mod bill;
mod deb;
mod static_binary;
mod tree;
mod verify;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use self::static_binary::{build as build_static, host};
use crate::cargo::root;

/// Options of `dist`.
#[derive(clap::Args)]
pub struct Args {
    /// Directory to put it into
    #[arg(long, default_value = "target/dist")]
    out: PathBuf,
    /// Install the Debian package into an empty root, run it there and remove it again (needs root)
    #[arg(long)]
    verify: bool,
}

/// What every part needs to know.
struct Release {
    version: String,
    /// Like `x86_64`.
    arch: String,
    /// Seconds since 1970 that every packed file carries: the time of the last commit.
    epoch: u64,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let root = root()?;
    let release = Release::of(&root)?;
    let binary = build_static(&root)?;
    let tree = tree::Tree::collect(&root, &binary)?;
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;

    let name = format!("tcptrace-{}-{}-linux", release.version, release.arch);
    let package = deb::build(&tree, &release, &args.out)?;
    if args.verify {
        verify::verify(&package, &release)?;
    }
    let made = [
        tree.tarball(&release, &name, &args.out)?,
        package,
        bill::write(&root, &release, &args.out.join(format!("{name}.cdx.json")))?,
    ];
    let mut sums = String::new();
    for file in &made {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let shown = file.file_name().unwrap_or_default().to_string_lossy();
        let digest = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        sums.push_str(&format!("{digest}  {shown}\n"));
        println!("{}: {} bytes", file.display(), bytes.len());
    }
    let path = args.out.join("SHA256SUMS");
    fs::write(&path, sums).with_context(|| format!("cannot write {}", path.display()))
}

impl Release {
    fn of(root: &Path) -> Result<Self> {
        // A release's time is part of its bytes, so that it cannot be the time of the build.
        let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => text.parse().context("SOURCE_DATE_EPOCH is no number of seconds")?,
            Err(_) => output(Command::new("git").current_dir(root).args(["log", "-1", "--format=%ct"]))
                .context("the time of the last commit is not known: set SOURCE_DATE_EPOCH")?
                .trim()
                .parse()
                .context("git printed no time")?,
        };
        let arch = host()?.split('-').next().unwrap_or_default().to_owned();
        Ok(Self { version: env!("CARGO_PKG_VERSION").to_owned(), arch, epoch })
    }
}

/// Runs a program and takes what it prints.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} printed no text"))
}
