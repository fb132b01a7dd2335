//! In place of the filter of system calls, on architectures that it is not written for: their lists of calls differ.

use std::io;

use super::confine::Allow;

/// Filters nothing, and says so.
pub(super) fn restrict(_: Allow) -> io::Result<bool> {
    Ok(false)
}
