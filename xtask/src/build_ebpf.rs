//! `cargo xtask build-ebpf`: compiles the BPF object from source.
//!
//! The object is committed beside its source so that `cargo build` needs no BPF toolchain; the manifest next
//! to it says which toolchain made it and from which sources. The build gives the same bytes in every
//! directory: paths are remapped, the lock file is kept and link-time optimisation runs in one unit.

mod compile;
mod manifest;
mod toolchain;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::cargo::root;

use self::{
    manifest::Manifest,
    toolchain::{Kind, Toolchain},
};

/// The object's path below the workspace root.
const OBJECT: &str = "tcptrace-ebpf/prebuilt/tcptrace.bpf.o";
/// The manifest's path below the workspace root.
const MANIFEST: &str = "tcptrace-ebpf/prebuilt/tcptrace.bpf.txt";

/// Options of `build-ebpf`.
#[derive(clap::Args)]
pub struct Args {
    /// Write nothing: fail unless the committed object is of the present sources and, where this toolchain is
    /// the one that made it, the same byte for byte
    #[arg(long)]
    check: bool,
    /// Use this toolchain instead of the first one found
    #[arg(long, value_enum)]
    toolchain: Option<Kind>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let root = root()?;
    let toolchain = Toolchain::find(args.toolchain)?;
    eprintln!("compiling with {}", toolchain.description());
    let object = compile::compile(&root, &toolchain)?;
    let built = Manifest {
        object: manifest::digest_bytes(&object),
        sources: manifest::digest_sources(&root)?,
        toolchain: toolchain.versions().to_vec(),
    };
    if args.check { check(&root, &built) } else { write(&root, &object, &built) }
}

fn write(root: &Path, object: &[u8], manifest: &Manifest) -> Result<()> {
    for (path, bytes) in [(OBJECT, object), (MANIFEST, manifest.to_string().as_bytes())] {
        let path = root.join(path);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        }
        fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
    }
    println!("{OBJECT}: {} bytes, sha256 {}", object.len(), manifest.object);
    Ok(())
}

fn check(root: &Path, built: &Manifest) -> Result<()> {
    let committed = Manifest::read(&root.join(MANIFEST))?;
    committed.check(root)?;
    if committed.toolchain != built.toolchain {
        println!("{OBJECT}: of the present sources; not compared byte for byte, another toolchain made it:");
        for line in &committed.toolchain {
            println!("  {line}");
        }
        return Ok(());
    }
    if committed.object != built.object {
        bail!(
            "{OBJECT} differs from what the same toolchain makes of the same sources: sha256 {} committed, \
             {} built; run `cargo xtask build-ebpf` and commit the result",
            committed.object,
            built.object
        );
    }
    println!("{OBJECT}: the same byte for byte, sha256 {}", built.object);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The collector carries the committed object: sources that it was not built from would lie.
    #[test]
    fn committed_object_is_of_the_present_sources() {
        let root = root().unwrap();
        Manifest::read(&root.join(MANIFEST)).unwrap().check(&root).unwrap();
    }
}
