//! A Debian package. The binary is static: it depends on nothing, and has no scripts that run as root.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::tree::Tree;
use super::{Release, output};

/// Builds tcptrace_VERSION_ARCH.deb.
pub fn build(tree: &Tree, release: &Release, out: &Path) -> Result<PathBuf> {
    let arch = match release.arch.as_str() {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("no name of Debian's for the architecture {other} is known here"),
    };
    let package = TempDir::new().context("cannot make a temporary directory")?;
    let usr = package.path().join("usr");
    output(Command::new("cp").args(["--archive", "--no-target-directory"]).arg(tree.path()).arg(&usr))?;
    // The name that Debian's policy gives a licence.
    let documents = usr.join("share/doc/tcptrace");
    fs::rename(documents.join("LICENSE"), documents.join("copyright")).context("cannot rename LICENSE")?;
    let kib =
        output(Command::new("du").args(["--summarize", "--apparent-size", "--block-size=1024"]).arg(&usr))?;
    let kib = kib.split_whitespace().next().unwrap_or_default();
    let debian = package.path().join("DEBIAN");
    fs::create_dir(&debian).context("cannot make DEBIAN")?;
    fs::write(debian.join("control"), control(release, arch, kib)).context("cannot write control")?;
    for dir in [package.path(), &usr, &debian] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).context("cannot change a mode")?;
    }
    let path = out.join(format!("tcptrace_{}_{arch}.deb", release.version));
    output(
        Command::new("dpkg-deb")
            .env("SOURCE_DATE_EPOCH", release.epoch.to_string())
            .args(["--root-owner-group", "-Zxz", "--build"])
            .arg(package.path())
            .arg(&path),
    )
    .context("a .deb is built by dpkg-deb (Debian package dpkg)")?;
    Ok(path)
}

fn control(release: &Release, arch: &str, kib: &str) -> String {
    format!(
        "\
Package: tcptrace
Version: {}
Architecture: {arch}
Maintainer: The tcptrace authors <tcptrace@localhost>
Installed-Size: {kib}
Section: net
Priority: optional
Description: how long TCP's closing states really last, and who is responsible
 Measures TIME_WAIT, CLOSE_WAIT and FIN_WAIT2 with eBPF, says why each ended,
 names the process and the line of code that leaks CLOSE_WAIT, and what a
 sysctl such as tcp_fin_timeout really changed. Needs Linux 5.8 or later with
 BTF.
",
        release.version
    )
}
