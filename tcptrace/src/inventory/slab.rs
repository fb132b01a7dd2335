//! What the kernel's slab allocator says about one kind of object.

use std::path::Path;
use std::{fs, io};

/// Where the kernel lists its caches; root only.
const SLABINFO: &str = "/proc/slabinfo";
/// A directory for each cache; a link to another where caches share slabs.
const SLAB_DIR: &str = "/sys/kernel/slab";

/// A cache of objects of one kind, of the whole host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Name.
    pub name: String,
    /// Objects in use, those included that wait for reuse on a CPU's own list: an upper bound.
    pub active: u64,
    /// Objects that there is memory for.
    pub total: u64,
    /// Size of one, with its padding, bytes.
    pub object_bytes: u64,
    /// Memory that they take, bytes: whole slabs.
    pub memory_bytes: u64,
}

/// A cache that tells nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlabError {
    /// The list cannot be read.
    #[error("{SLABINFO} cannot be read: {0}")]
    Unreadable(String),
    /// The cache shares its slabs with others, and its objects are counted among theirs.
    #[error("{0} shares its slabs with other caches (boot with slab_nomerge to tell them apart)")]
    Merged(String),
    /// There is no such cache.
    #[error("the kernel has no slab cache {0}")]
    Absent(String),
}

/// Reads the caches of these names.
#[must_use]
pub fn caches(names: &[&str]) -> Vec<Result<Cache, SlabError>> {
    let text = fs::read_to_string(SLABINFO);
    names.iter().map(|name| find(text.as_deref(), name, Path::new(SLAB_DIR))).collect()
}

fn find(slabinfo: Result<&str, &io::Error>, name: &str, slab_dir: &Path) -> Result<Cache, SlabError> {
    let text = slabinfo.map_err(|error| SlabError::Unreadable(error.to_string()))?;
    let page_bytes = rustix::param::page_size() as u64;
    if let Some(cache) = text.lines().find_map(|line| parse(line, name, page_bytes)) {
        return Ok(cache);
    }
    // A cache of its own is a directory; a merged one a link to that of an alias.
    let is_merged = fs::symlink_metadata(slab_dir.join(name)).is_ok_and(|found| found.is_symlink());
    Err(if is_merged { SlabError::Merged(name.to_owned()) } else { SlabError::Absent(name.to_owned()) })
}

/// `name <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables … : slabdata <active_slabs>
/// <num_slabs> <sharedavail>`, version 2.1.
fn parse(line: &str, name: &str, page_bytes: u64) -> Option<Cache> {
    let mut words = line.split_ascii_whitespace();
    if words.next()? != name {
        return None;
    }
    let mut number = || words.next()?.parse::<u64>().ok();
    let (active, total, object_bytes, _, pages) = (number()?, number()?, number()?, number()?, number()?);
    let slabs: u64 = line.split_once(": slabdata")?.1.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let memory_bytes = slabs.checked_mul(pages)?.checked_mul(page_bytes)?;
    Some(Cache { name: name.to_owned(), active, total, object_bytes, memory_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "slabinfo - version: 2.1\n\
        # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables\n\
        tw_sock_TCPv6         80     80    256   16    1 : tunables    0    0    0 : slabdata      5      5      0\n\
        tw_sock_TCP          176    240    256   16    2 : tunables    0    0    0 : slabdata     14     15      0\n";

    #[test]
    fn a_cache_is_read_by_its_whole_name() {
        let none = Path::new("/nowhere");
        let cache = find(Ok(TEXT), "tw_sock_TCP", none).expect("there");
        let pages = 30 * rustix::param::page_size() as u64;
        assert_eq!(
            (cache.active, cache.total, cache.object_bytes, cache.memory_bytes),
            (176, 240, 256, pages)
        );
        assert_eq!(find(Ok(TEXT), "tw_sock", none), Err(SlabError::Absent("tw_sock".into())));
    }

    #[test]
    fn a_cache_that_cannot_be_told_apart_says_so() {
        let dir = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink(":0000256", dir.path().join("tw_sock_X")).expect("a link");
        let found = find(Ok(TEXT), "tw_sock_X", dir.path());
        assert_eq!(found, Err(SlabError::Merged("tw_sock_X".into())));
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(matches!(find(Err(&denied), "tw_sock_TCP", dir.path()), Err(SlabError::Unreadable(_))));
    }

    #[test]
    fn damaged_lines_are_no_caches() {
        for line in ["tw", "tw 1 2", "tw 1 2 3 4 5 : tunables", "tw 1 2 3 4 5 : tunables : slabdata x y z"] {
            assert_eq!(parse(line, "tw", 4096), None, "{line}");
        }
    }
}
