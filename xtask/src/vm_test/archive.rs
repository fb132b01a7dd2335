//! Kernels out of Debian's archive: found, verified and fetched by apt with lists and state of its own, so that
//! nothing of this machine's packages is touched, and kept unpacked under `target/vm/kernels`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::kernel::{Kernel, Suite};

/// Whose signatures are believed (package `debian-archive-keyring`, on every Debian).
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What makes `sock_diag` answer for TCP, in the order of loading. Modules in Debian's kernels.
const MODULES: [&str; 3] = ["inet_diag", "tcp_diag", "mptcp_diag"];
/// In the directory of an unpacked kernel: which package it is of. Written last.
const PACKAGE: &str = "package";

/// An unpacked kernel.
pub struct Unpacked {
    /// Name and version of its package.
    pub package: String,
    /// What QEMU boots.
    pub image: PathBuf,
    /// Modules, uncompressed, in the order of loading.
    pub modules: Vec<PathBuf>,
}

/// The kernel, from the cache below `directory` or fetched; `update` asks for a newer one.
pub fn kernel(kernel: &Kernel, directory: &Path, update: bool) -> Result<Unpacked> {
    let home = directory.join("kernels").join(kernel.to_string());
    if update || !home.join(PACKAGE).exists() {
        let apt = Apt::new(kernel, directory)?;
        apt.run(Command::new("apt-get").arg("update"))?;
        let newest = apt.newest(kernel)?;
        let known = fs::read_to_string(home.join(PACKAGE)).unwrap_or_default();
        if known != newest.to_string() {
            apt.fetch(&newest, &home)?;
        }
    }
    look(&home)
}

/// What is in the directory of an unpacked kernel.
fn look(home: &Path) -> Result<Unpacked> {
    let package = fs::read_to_string(home.join(PACKAGE)).with_context(|| home.display().to_string())?;
    let modules = MODULES.iter().map(|name| home.join(format!("{name}.ko"))).filter(|file| file.exists());
    Ok(Unpacked { package, image: home.join("vmlinuz"), modules: modules.collect() })
}

/// A package of a kernel.
struct Package {
    name: String,
    version: String,
    /// Newer kernels come in parts: image and modules are packages that the named one depends on.
    parts: Vec<String>,
}

impl std::fmt::Display for Package {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// apt, with everything that it keeps below one directory.
struct Apt {
    home: PathBuf,
    arch: &'static str,
}

impl Apt {
    fn new(kernel: &Kernel, directory: &Path) -> Result<Self> {
        let suite = kernel.suite();
        let arch = kernel.arch.debian();
        let home = directory.join("apt").join(format!("{}-{arch}", suite.name));
        for part in ["lists/partial", "cache/archives/partial", "state"] {
            fs::create_dir_all(home.join(part)).with_context(|| home.display().to_string())?;
        }
        fs::write(home.join("status"), "")?;
        let source = format!("deb [signed-by={KEYRING}] {} {} main\n", mirror(suite)?, suite.name);
        fs::write(home.join("sources.list"), source)?;
        Ok(Self { home, arch })
    }

    /// Runs an apt program on these lists; what it printed.
    fn run(&self, command: &mut Command) -> Result<String> {
        let home = self.home.display();
        let mut options = vec![
            format!("Dir::Etc::sourcelist={home}/sources.list"),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State={home}/state"),
            format!("Dir::State::lists={home}/lists"),
            format!("Dir::State::status={home}/status"),
            format!("Dir::Cache={home}/cache"),
            format!("APT::Architecture={}", self.arch),
            format!("APT::Architectures={}", self.arch),
            "Acquire::Languages=none".to_owned(),
            // The unprivileged user of apt cannot write below somebody's home.
            "APT::Sandbox::User=root".to_owned(),
        ];
        for graphical in ["DEP-11", "DEP-11-icons-small", "DEP-11-icons"] {
            options.push(format!("Acquire::IndexTargets::deb::{graphical}::DefaultEnabled=false"));
        }
        for option in options {
            command.args(["-o", &option]);
        }
        output(command.arg("-q"))
    }

    /// The newest package of the series.
    fn newest(&self, kernel: &Kernel) -> Result<Package> {
        let available = self.run(Command::new("apt-cache").arg("dumpavail"))?;
        let mut newest: Option<Package> = None;
        for package in available.split("\n\n").filter_map(|stanza| parse(stanza, kernel)) {
            let is_newer = match &newest {
                None => true,
                Some(known) => Command::new("dpkg")
                    .args(["--compare-versions", &package.version, "gt", &known.version])
                    .status()
                    .context("dpkg")?
                    .success(),
            };
            if is_newer {
                newest = Some(package);
            }
        }
        let suite = kernel.suite().name;
        newest.with_context(|| format!("{suite} has no kernel {kernel} of the cloud flavour"))
    }

    /// Downloads a package with its parts, and takes out what is needed.
    fn fetch(&self, package: &Package, home: &Path) -> Result<()> {
        println!("  fetching {package}");
        let scratch = tempfile::tempdir_in(&self.home)?;
        let names = std::iter::once(&package.name).chain(&package.parts);
        let versions = names.map(|name| format!("{name}={}", package.version));
        let mut download = Command::new("apt-get");
        self.run(download.arg("download").args(versions).current_dir(scratch.path()))?;
        for entry in fs::read_dir(scratch.path())? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "deb") {
                unpack(&file, scratch.path())?;
            }
        }
        if home.exists() {
            fs::remove_dir_all(home)?;
        }
        fs::create_dir_all(home)?;
        let found = files(scratch.path())?;
        let named = |start: &str| {
            found
                .iter()
                .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)))
        };
        let image = named("vmlinuz-").or_else(|| named("vmlinuz"));
        fs::copy(image.with_context(|| format!("no kernel in {package}"))?, home.join("vmlinuz"))?;
        for module in MODULES {
            // Built in, or not built.
            let Some(file) = named(&format!("{module}.ko")) else { continue };
            fs::write(home.join(format!("{module}.ko")), decompressed(file)?)?;
        }
        Ok(fs::write(home.join(PACKAGE), package.to_string())?)
    }
}

/// A stanza of a package list, when it is one of the kernel's series.
fn parse(stanza: &str, kernel: &Kernel) -> Option<Package> {
    let field = |name: &str| {
        stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::trim))
    };
    let name = field("Package").filter(|name| kernel.is_package(name))?;
    let of_this_kernel = name.strip_prefix("linux-image")?;
    let depends = field("Depends").unwrap_or_default();
    let parts = ["linux-binary", "linux-modules"].map(|part| format!("{part}{of_this_kernel}"));
    let is_needed = |part: &String| depends.split([',', ' ', '|']).any(|word| word == part);
    Some(Package {
        name: name.to_owned(),
        version: field("Version")?.to_owned(),
        parts: parts.into_iter().filter(is_needed).collect(),
    })
}

/// Where this machine gets its Debian from: what its own apt asks for the release that it runs.
fn mirror(suite: Suite) -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename =
        release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or_default();
    let wanted = if suite.is_security { format!("{codename}-security") } else { codename.to_owned() };
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]);
    let targets = output(&mut command).context("kernels are fetched by apt, from Debian's archive")?;
    let mirror = targets.lines().find_map(|line| match line.split_once(' ') {
        Some((release, uri)) if release == wanted => Some(uri.trim_end_matches('/').to_owned()),
        _ => None,
    });
    mirror.with_context(|| {
        format!("apt's sources have no {wanted:?}, whose mirror would be asked for {}", suite.name)
    })
}

/// Takes the kernel and the modules that are wanted out of a package.
fn unpack(package: &Path, into: &Path) -> Result<()> {
    let mut reading =
        Command::new("dpkg-deb").arg("--fsys-tarfile").arg(package).stdout(Stdio::piped()).spawn()?;
    let mut patterns = vec!["*/vmlinuz*".to_owned()];
    patterns.extend(MODULES.iter().map(|module| format!("*/{module}.ko*")));
    let archive = reading.stdout.take().context("stdout")?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--wildcards", "--no-same-owner", "--directory"]).arg(into).args(patterns);
    // It fails for a pattern that nothing matches, and there always is one.
    tar.stdin(archive).stderr(Stdio::null()).status().context("tar")?;
    ensure!(reading.wait()?.success(), "dpkg-deb cannot read {}", package.display());
    Ok(())
}

/// Every file below a directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => found.extend(files(&entry.path())?),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    Ok(found)
}

/// A module as the kernel takes it.
fn decompressed(file: &Path) -> Result<Vec<u8>> {
    let program = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return Ok(fs::read(file)?),
    };
    let output = Command::new(program).args(["--decompress", "--stdout"]).arg(file).output();
    let output = output.with_context(|| format!("{program}, to unpack {}", file.display()))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// What a command printed, when it succeeded.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_kernel_are_found_in_what_it_depends_on() {
        let kernel: Kernel = "newest".parse().unwrap();
        let stanza = "Package: linux-image-7.3.4+deb13-cloud-amd64\nVersion: 7.3.4-1\n\
            Depends: dracut | initramfs-tools (>= 0.120), linux-base-7.3.4+deb13-cloud-amd64 (= 7.3.4-1), \
            linux-binary-7.3.4+deb13-cloud-amd64 (= 7.3.4-1), linux-modules-7.3.4+deb13-cloud-amd64 (= 7.3.4-1)";
        let package = parse(stanza, &kernel).unwrap();
        assert_eq!(package.to_string(), "linux-image-7.3.4+deb13-cloud-amd64 7.3.4-1");
        assert_eq!(
            package.parts,
            ["linux-binary-7.3.4+deb13-cloud-amd64", "linux-modules-7.3.4+deb13-cloud-amd64"]
        );
        let whole = "Package: linux-image-6.1.0-56-cloud-amd64\nVersion: 6.1.192-2\nDepends: kmod";
        assert!(parse(whole, &kernel).unwrap().parts.is_empty());
        assert!(parse("Package: linux-image-cloud-amd64\nVersion: 7.3.4-1", &kernel).is_none());
    }
}
