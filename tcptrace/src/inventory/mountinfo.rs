//! `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// What is asked of a mount.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mount<'a> {
    /// The part of the filesystem that is mounted; for a namespace `net:[4026532208]`.
    pub root: &'a [u8],
    /// Where.
    pub target: PathBuf,
    /// Filesystem type.
    pub fstype: &'a [u8],
}

/// Lines like `62 31 0:4 net:[4026532208] /run/netns/blue rw shared:7 - nsfs nsfs rw`: a variable number of
/// optional fields stands before the hyphen. Lines that are not so are passed over.
pub(crate) fn mounts(text: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    text.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ').skip(3);
        let (root, target) = (fields.next()?, fields.next()?);
        let fstype = fields.skip_while(|&field| field != b"-").nth(1)?;
        Some(Mount { root, target: unescape(target), fstype })
    })
}

/// Undoes the kernel's `mangle_path`: space, tab, newline and backslash as `\ooo`.
fn unescape(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\')
            .then(|| std::str::from_utf8(tail.get(..3)?).ok())
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(octal.unwrap_or(first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(out).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_taken_apart_and_unescaped() {
        let text = b"31 23 0:28 / /sys rw - sysfs sysfs rw\njunk\n\n\
            62 31 0:4 net:[4026532208] /run/netns/a\\040b rw shared:7 master:2 - nsfs nsfs rw\n";
        let found: Vec<_> = mounts(text).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].root, found[0].fstype), (&b"/"[..], &b"sysfs"[..]));
        assert_eq!(found[1].target, PathBuf::from("/run/netns/a b"));
        assert_eq!(found[1].root, b"net:[4026532208]");
        assert_eq!(unescape(b"a\\9\\"), PathBuf::from("a\\9\\"));
    }
}
