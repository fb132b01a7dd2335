//! `cargo xtask dist`: what is handed out. The same bytes come out in every directory and at any time: paths are
//! remapped, times are those of the last commit, and what is packed is sorted.

mod bill;
mod deb;
mod static_binary;
mod tree;
mod twice;
mod verify;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use self::static_binary::host;
use crate::cargo::{root, target_dir};

/// Options of `dist`.
#[derive(clap::Args)]
pub struct Args {
    /// Directory to put it into
    #[arg(long, default_value = "target/dist")]
    out: PathBuf,
    /// Install the Debian package into an empty root, run it there and remove it again (needs root)
    #[arg(long)]
    verify: bool,
    /// Make all of it once more from a copy of the sources in another directory, and compare the bytes
    #[arg(long)]
    twice: bool,
}

/// What every part needs to know.
struct Release {
    version: String,
    /// Like `x86_64`.
    arch: String,
    /// Seconds since 1970 that every packed file carries: the time of the last commit.
    epoch: u64,
}

/// What was made.
struct Made {
    tarball: PathBuf,
    package: PathBuf,
    bill: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let root = root()?;
    let release = Release::of(&root)?;
    let made = make(&root, &target_dir()?, &release, &args.out)?;
    for file in made.files() {
        let bytes = fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len();
        println!("{}: {bytes} bytes", file.display());
    }
    let sums = made.sums()?;
    let path = args.out.join("SHA256SUMS");
    fs::write(&path, &sums).with_context(|| format!("cannot write {}", path.display()))?;
    if args.verify {
        verify::verify(&made.package, &release)?;
    }
    if args.twice {
        twice::compare(&root, &release, &sums, &args.out)?;
    }
    Ok(())
}

/// Makes everything of the sources below `root` and puts it into `out`; cargo works in `target`.
fn make(root: &Path, target: &Path, release: &Release, out: &Path) -> Result<Made> {
    let binary = static_binary::build(root, target)?;
    let tree = tree::Tree::collect(root, &binary)?;
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let name = format!("tcptrace-{}-{}-linux", release.version, release.arch);
    Ok(Made {
        tarball: tree.tarball(release, &name, out)?,
        package: deb::build(&tree, release, out)?,
        bill: bill::write(root, release, &out.join(format!("{name}.cdx.json")))?,
    })
}

impl Made {
    fn files(&self) -> [&Path; 3] {
        [&self.tarball, &self.package, &self.bill]
    }

    /// Digest and name, a line each, as `sha256sum --check` reads them.
    fn sums(&self) -> Result<String> {
        let mut sums = String::new();
        for file in self.files() {
            let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            let shown = file.file_name().unwrap_or_default().to_string_lossy();
            let digest = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            sums.push_str(&format!("{digest}  {shown}\n"));
        }
        Ok(sums)
    }
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
