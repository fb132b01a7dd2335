//! The CLOSE of a socket whose mini has just been reported.
//!
//! `tcp_time_wait` makes a mini, arms its timer, and then lets go of the socket (`tcp_done`): two events on one CPU with
//! nothing between them, of which the second says what the first did. One record in eight is such a CLOSE. It is left
//! out while the reader knows the socket, and so the state that it came from; not otherwise, and never without a mini
//! whose record found room.

use crate::{
    config::config,
    flow::Flow,
    kernel::ReadFailed,
    maps::{Identity, LAST_MINI, READER_KNOWS},
    object::Object,
};

const NONE: Identity = Identity { hash_and_ports: 0, netns: 0 };

/// A mini's beginning has been reported.
#[inline(always)]
pub fn begun(identity: Identity) {
    if let Some(last) = LAST_MINI.get_ptr_mut(0) {
        // SAFETY: the slot belongs to this CPU. A program that interrupts this one may mix two identities, which is that
        // of no socket.
        unsafe { last.write(identity) };
    }
}

/// A transition is about to be reported. Whether it need not be, if it is the CLOSE of `flow` from FIN_WAIT2 (`is_close`).
#[inline(always)]
pub fn is_told<O: Object>(flow: &Flow<'_, O>, is_close: bool) -> Result<bool, ReadFailed> {
    let Some(last) = LAST_MINI.get_ptr_mut(0) else { return Ok(false) };
    // SAFETY: as above.
    let told = unsafe { *last };
    if told == NONE {
        return Ok(false);
    }
    // Whatever comes after: the same four-tuple may be used again.
    // SAFETY: as above.
    unsafe { last.write(NONE) };
    Ok(is_close && told == identity(flow)? && reader_knows())
}

/// What `flow` is known by.
#[inline(always)]
pub fn identity<O: Object>(flow: &Flow<'_, O>) -> Result<Identity, ReadFailed> {
    let ports = u64::from(flow.local_port) << 16 | u64::from(flow.remote_port);
    let hash = flow.common.member::<u32>(config!(offsets.skc_hash))?;
    Ok(Identity { hash_and_ports: u64::from(hash) << 32 | ports, netns: flow.namespace.inode.into() })
}

#[inline(always)]
fn reader_knows() -> bool {
    // SAFETY: within the map and aligned; a word that the reader writes as a whole.
    READER_KNOWS.get_ptr(0).is_some_and(|knows| unsafe { knows.read_volatile() } != 0)
}
