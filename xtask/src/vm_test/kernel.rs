//! Which kernels there are, and where Debian keeps them.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};

/// An architecture that tcptrace runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// aarch64.
    Arm64,
}

impl Arch {
    /// As Debian calls it.
    pub fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As Rust calls it, with glibc.
    pub fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Whether its programs run on this machine.
    pub fn is_native(self) -> bool {
        match self {
            Self::Amd64 => cfg!(target_arch = "x86_64"),
            Self::Arm64 => cfg!(target_arch = "aarch64"),
        }
    }
}

/// A kernel to boot: the newest package of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// `6.1`, or [`NEWEST`].
    pub series: String,
    /// For which machine.
    pub arch: Arch,
}

/// The series of whatever is the newest kernel there is.
pub const NEWEST: &str = "newest";

/// Part of the Debian archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    /// Its name.
    pub name: &'static str,
    /// Whether it is kept with the security updates.
    pub is_security: bool,
}

/// Every kernel that docs/kernels.md shows.
pub fn matrix() -> Vec<Kernel> {
    let kernel = |series: &str, arch| Kernel { series: series.to_owned(), arch };
    let mut matrix: Vec<_> =
        ["5.10", "6.1", "6.12", NEWEST].into_iter().map(|series| kernel(series, Arch::Amd64)).collect();
    matrix.push(kernel("6.12", Arch::Arm64));
    matrix
}

impl Kernel {
    /// Where its packages are. Small lists all of them: those of the whole stable releases are a hundred times
    /// as large.
    pub fn suite(&self) -> Suite {
        match self.series.as_str() {
            "5.10" => Suite { name: "bullseye-security", is_security: true },
            "6.1" | "6.12" => Suite { name: "bookworm-security", is_security: true },
            _ => Suite { name: "trixie-backports", is_security: false },
        }
    }

    /// Whether `package` is a kernel of this series, of the flavour without drivers for real hardware:
    /// `linux-image-6.1.0-56-cloud-amd64`, and neither its debugging symbols nor an unsigned copy.
    pub fn is_package(&self, package: &str) -> bool {
        let flavour = format!("-cloud-{}", self.arch.debian());
        let Some(release) = package.strip_prefix("linux-image-").and_then(|rest| rest.strip_suffix(&flavour))
        else {
            return false;
        };
        if self.series == NEWEST {
            return release.starts_with(|first: char| first.is_ascii_digit())
                && release.matches('.').count() >= 2;
        }
        release.strip_prefix(&self.series).is_some_and(|rest| rest.starts_with('.'))
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.series, self.arch.debian())
    }
}

impl FromStr for Kernel {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (series, arch) = match text.rsplit_once('-') {
            None => (text, Arch::Amd64),
            Some((series, "amd64")) => (series, Arch::Amd64),
            Some((series, "arm64")) => (series, Arch::Arm64),
            Some((_, arch)) => bail!("no kernels for {arch:?}: amd64 (also without saying so) or arm64"),
        };
        let is_version = series
            .split_once('.')
            .is_some_and(|(major, minor)| major.parse::<u32>().is_ok() && minor.parse::<u32>().is_ok());
        if !is_version && series != NEWEST {
            bail!("{series:?} is no series of kernels: as 6.1, or {NEWEST}");
        }
        Ok(Self { series: series.to_owned(), arch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_a_series_are_told_from_their_likes() {
        let kernel: Kernel = "6.1".parse().unwrap();
        assert!(kernel.is_package("linux-image-6.1.0-56-cloud-amd64"));
        for other in [
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64-dbg",
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            "linux-image-6.1.0-56-cloud-arm64",
            "linux-image-6.1.0-56-amd64",
            "linux-image-cloud-amd64",
        ] {
            assert!(!kernel.is_package(other), "{other}");
        }
        let newest: Kernel = "newest-arm64".parse().unwrap();
        assert!(newest.is_package("linux-image-7.3.4+deb13-cloud-arm64"));
        assert!(!newest.is_package("linux-image-cloud-arm64"));
        assert!(!newest.is_package("linux-image-6.12-cloud-arm64"));
    }

    #[test]
    fn kernels_are_named_as_they_are_asked_for() {
        for name in ["5.10-amd64", "6.12-arm64", "newest-amd64"] {
            assert_eq!(name.parse::<Kernel>().unwrap().to_string(), name);
        }
        for name in ["6", "6.1-riscv64", "six.one", "6.1.0", ""] {
            assert!(name.parse::<Kernel>().is_err(), "{name:?}");
        }
    }
}
