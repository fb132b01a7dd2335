//! The text file beside the object: what it was made of, and with what.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use super::{MANIFEST, OBJECT};

/// What the object is made of, below the workspace root: files, and directories with all that is in them.
const SOURCES: [&str; 5] = [
    "tcptrace-common/Cargo.toml",
    "tcptrace-common/src",
    "tcptrace-ebpf/Cargo.lock",
    "tcptrace-ebpf/Cargo.toml",
    "tcptrace-ebpf/src",
];

/// The manifest's content.
#[derive(Debug, PartialEq, Eq)]
pub struct Manifest {
    /// SHA-256 of the object.
    pub object: String,
    /// SHA-256 over the sources, see [`digest_sources`].
    pub sources: String,
    /// A line for each tool, with its version.
    pub toolchain: Vec<String>,
}

impl Manifest {
    /// Reads the manifest at `path`.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| {
            format!("read {}; `cargo xtask build-ebpf` makes it and the object", path.display())
        })?;
        Self::parse(&text).with_context(|| format!("read {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let (mut object, mut sources, mut toolchain) = (None, None, Vec::new());
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            match line.split_once(": ") {
                Some(("object", value)) => object = Some(value.to_owned()),
                Some(("sources", value)) => sources = Some(value.to_owned()),
                Some(("tool", value)) => toolchain.push(value.to_owned()),
                _ => bail!("a line that no manifest has: {line:?}"),
            }
        }
        Ok(Self {
            object: object.context("no line `object`")?,
            sources: sources.context("no line `sources`")?,
            toolchain,
        })
    }

    /// Fails unless the object beside the manifest is the one it describes, and made of the present sources.
    pub fn check(&self, root: &Path) -> Result<()> {
        let path = root.join(OBJECT);
        let object = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        if digest_bytes(&object) != self.object {
            bail!("{OBJECT} is not the one that {MANIFEST} describes; run `cargo xtask build-ebpf`");
        }
        if digest_sources(root)? != self.sources {
            bail!(
                "{OBJECT} is stale: {} have changed since it was built; run `cargo xtask build-ebpf` and \
                 commit the result",
                SOURCES.join(", ")
            );
        }
        Ok(())
    }
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Written by `cargo xtask build-ebpf`. Digests are SHA-256.")?;
        writeln!(f, "object: {}", self.object)?;
        writeln!(f, "sources: {}", self.sources)?;
        self.toolchain.iter().try_for_each(|line| writeln!(f, "tool: {line}"))
    }
}

/// SHA-256 in hexadecimal.
pub fn digest_bytes(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).as_slice())
}

/// SHA-256 over all of [`SOURCES`] below `root`: for each file, sorted by path, the path, its length and its
/// bytes, so that neither a rename nor text moved between files goes unseen.
pub fn digest_sources(root: &Path) -> Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&root.join(source), &mut files)?;
    }
    files.sort();
    let mut digest = Sha256::new();
    for path in files {
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        digest.update(format!("{name}\0{}\0", bytes.len()));
        digest.update(&bytes);
    }
    Ok(hex(digest.finalize().as_slice()))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let what = || format!("read {}", path.display());
    if !fs::metadata(path).with_context(what)?.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(what)? {
        let entry = entry.with_context(what)?.path();
        // Editors leave files beside those that they edit; cargo reads .rs only.
        if entry.is_dir() || entry.extension().is_some_and(|extension| extension == "rs") {
            collect(&entry, files)?;
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let manifest = Manifest {
            object: "ab".into(),
            sources: "cd".into(),
            toolchain: vec!["rustc 1.96.0: a".into(), "bpf-linker 0.13.0".into()],
        };
        assert_eq!(Manifest::parse(&manifest.to_string()).unwrap(), manifest);
    }

    #[test]
    fn refuses_what_is_no_manifest() {
        assert!(Manifest::parse("object: ab\n").is_err());
        assert!(Manifest::parse("object: ab\nsources: cd\nhello\n").is_err());
    }

    #[test]
    fn digest_sees_a_change_and_a_rename_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        for source in SOURCES {
            let path = root.path().join(source);
            let path = if path.extension().is_some() { path } else { path.join("lib.rs") };
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, source).unwrap();
        }
        let before = digest_sources(root.path()).unwrap();
        let file = root.path().join("tcptrace-ebpf/src/lib.rs");
        fs::write(file.with_extension("rs.swp"), "an editor's").unwrap();
        assert_eq!(digest_sources(root.path()).unwrap(), before);
        fs::write(&file, "changed").unwrap();
        assert_ne!(digest_sources(root.path()).unwrap(), before);
        fs::write(&file, "tcptrace-ebpf/src").unwrap();
        assert_eq!(digest_sources(root.path()).unwrap(), before);
        fs::rename(&file, file.with_file_name("main.rs")).unwrap();
        assert_ne!(digest_sources(root.path()).unwrap(), before);
    }
}
