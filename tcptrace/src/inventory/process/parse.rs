//! Files of `/proc/PID`.

use crate::event::Comm;

/// Fields after the task name in `stat` up to `starttime`, which is field 22 of `proc(5)`: the name is field 2.
const FIELDS_TO_START: usize = 22 - 3;

/// Task name and start time from `stat`. The name stands in parentheses and may hold anything, parentheses,
/// spaces and newlines too: it ends at the last parenthesis.
pub(crate) fn stat(text: &[u8]) -> Option<(Comm, u64)> {
    let open = text.iter().position(|&byte| byte == b'(')?;
    let close = text.iter().rposition(|&byte| byte == b')')?;
    let comm = Comm::from_bytes(text.get(open + 1..close)?);
    let start = text.get(close + 2..)?.split(|&byte| byte == b' ').nth(FIELDS_TO_START)?;
    Some((comm, number(start)?))
}

/// The second figure of `Uid:` in `status`: real, effective, saved, filesystem.
///
/// The task name comes before it, with newlines escaped by the kernel, so that no name can forge the line.
pub(crate) fn effective_uid(status: &[u8]) -> Option<u32> {
    number(line(status, b"Uid:")?.nth(1)?)
}

/// The soft limit of `Max open files` in `limits`; `None` when unlimited.
pub(crate) fn open_files_limit(limits: &[u8]) -> Option<u64> {
    number(line(limits, b"Max open files ")?.next()?)
}

/// The words behind `label` on its line.
fn line<'a>(text: &'a [u8], label: &[u8]) -> Option<impl Iterator<Item = &'a [u8]>> {
    let rest = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(label))?;
    Some(rest.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()))
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = b"42 (a) 7 (\nb) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 10 18446744073709551615\n";
        let (comm, start) = stat(text).expect("parses");
        assert_eq!((comm.bytes(), start), (&b"a) 7 (\nb"[..], 98765));
        assert_eq!(stat(b"42 (x) S 1"), None);
        assert_eq!(stat(b")("), None);
    }

    #[test]
    fn uid_and_limit_are_found() {
        assert_eq!(effective_uid(b"Name:\tx\\nUid:\t9\nUid:\t0\t33\t0\t0\n"), Some(33));
        let limits = b"Limit    Soft Limit  Hard Limit  Units\nMax open files   1024   524288   files\n";
        assert_eq!(open_files_limit(limits), Some(1024));
        assert_eq!(
            open_files_limit(b"Max open files            unlimited            unlimited            files\n"),
            None
        );
        assert_eq!(effective_uid(b""), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = (stat(&bytes), effective_uid(&bytes), open_files_limit(&bytes));
        }
    }
}
