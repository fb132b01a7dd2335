//! The files that are installed, as they lie below `/usr`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::{Release, output};

/// Shell, and where its completions are looked for.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/tcptrace"),
    ("zsh", "share/zsh/vendor-completions/_tcptrace"),
    ("fish", "share/fish/vendor_completions.d/tcptrace.fish"),
];
/// What is for reading, from the repository's root.
const DOCUMENTS: [&str; 3] = ["README.md", "CHANGELOG.md", "LICENSE"];

/// A directory with `bin`, `share` and `lib`.
pub struct Tree {
    dir: TempDir,
}

impl Tree {
    /// Puts everything in its place.
    pub fn collect(root: &Path, binary: &Path) -> Result<Self> {
        let dir = TempDir::new().context("cannot make a temporary directory")?;
        let tree = Self { dir };
        tree.copy(binary, "bin/tcptrace", 0o755)?;
        let man = tree.place("share/man/man1")?;
        output(Command::new(binary).args(["man", "--out"]).arg(&man))?;
        for page in sorted(&man)? {
            // Without a name and a time in it the same text gives the same bytes.
            output(Command::new("gzip").args(["-9", "-n"]).arg(&page))?;
        }
        for (shell, path) in COMPLETIONS {
            let text = output(Command::new(binary).args(["completions", shell]))?;
            tree.write(path, text.as_bytes())?;
        }
        tree.copy(
            &root.join("deploy/systemd/tcptrace.service"),
            "lib/systemd/system/tcptrace.service",
            0o644,
        )?;
        for document in DOCUMENTS {
            tree.copy(&root.join(document), &format!("share/doc/tcptrace/{document}"), 0o644)?;
        }
        for page in sorted(&root.join("docs"))? {
            if page.extension().is_some_and(|extension| extension == "md") {
                let name = page.file_name().unwrap_or_default().to_string_lossy().into_owned();
                tree.copy(&page, &format!("share/doc/tcptrace/{name}"), 0o644)?;
            }
        }
        Ok(tree)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Packs it as NAME.tar.gz, with everything below a directory NAME.
    pub fn tarball(&self, release: &Release, name: &str, out: &Path) -> Result<PathBuf> {
        let path = out.join(format!("{name}.tar.gz"));
        let tar = output(
            Command::new("tar")
                .args([
                    "--create",
                    "--format=ustar",
                    "--sort=name",
                    "--owner=0",
                    "--group=0",
                    "--numeric-owner",
                ])
                .arg(format!("--mtime=@{}", release.epoch))
                .args(["--mode=go=rX,u+rw,a-s", "--use-compress-program=gzip -9 -n"])
                .arg(format!("--transform=s,^\\.,{name},"))
                .arg("--file")
                .arg(&path)
                .arg("--directory")
                .arg(self.path())
                .arg("."),
        );
        tar.map(|_| path)
    }

    fn place(&self, path: &str) -> Result<PathBuf> {
        let place = self.path().join(path);
        fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        Ok(place)
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let (dir, name) = path.rsplit_once('/').unwrap_or((".", path));
        let place = self.place(dir)?.join(name);
        fs::write(&place, bytes).with_context(|| format!("cannot write {}", place.display()))
    }

    fn copy(&self, from: &Path, path: &str, mode: u32) -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.write(path, &bytes)?;
        let place = self.path().join(path);
        fs::set_permissions(&place, fs::Permissions::from_mode(mode))
            .with_context(|| format!("cannot change the mode of {}", place.display()))
    }
}

/// The files of a directory, by name.
pub fn sorted(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut files = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .with_context(|| format!("cannot list {}", dir.display()))?;
    if files.is_empty() {
        bail!("{} is empty", dir.display());
    }
    files.sort_unstable();
    Ok(files)
}
