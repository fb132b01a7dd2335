//! The same once more, from a copy of the sources in another directory: two builds on one machine must not differ.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::{Release, make, output};

/// Fails unless the digests of what is made elsewhere are `sums`; what is made there is put below `out` for comparison.
pub fn compare(root: &Path, release: &Release, sums: &str, out: &Path) -> Result<()> {
    // Of another length and depth, so that a path that slips through moves what follows it as well.
    let dir = tempfile::Builder::new().prefix("tcptrace-the-same-elsewhere-").tempdir();
    let dir: TempDir = dir.context("cannot make a temporary directory")?;
    let copy = dir.path().join("sources");
    copy_sources(root, &copy)?;
    let again = out.join("twice");
    let made = make(&copy, &dir.path().join("built"), release, &again)?;
    let other = made.sums()?;
    if other != sums {
        bail!(
            "from {} came\n{sums}but from {}\n{other}see {}",
            root.display(),
            copy.display(),
            again.display()
        );
    }
    println!("the same bytes from {} and from {}", root.display(), copy.display());
    Ok(())
}

/// Copies what git tracks, or would track, as it is now.
fn copy_sources(root: &Path, copy: &Path) -> Result<()> {
    let listed = output(Command::new("git").current_dir(root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))
    .context("which files are sources is asked of git")?;
    for path in listed.split_terminator('\0') {
        let (from, to) = (root.join(path), copy.join(path));
        // git lists what was deleted until that is committed.
        if !from.exists() {
            continue;
        }
        let parent = to.parent().context("a file has a directory")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}
