//! `tcp_max_tw_buckets`: how many minis a network namespace may have.

use tcptrace_common::{config::ABSENT, record::BUCKETS_UNKNOWN};

use crate::{config::config, kernel::ReadFailed, object::Object};

/// How many more minis `inet_twsk_alloc` would make in the namespace `net` (`struct net`), or
/// [`BUCKETS_UNKNOWN`].
///
/// Read when a socket is closed that would have left a mini: a refusal leaves no other trace on the socket.
#[inline(always)]
pub fn left<O: Object>(net: Option<&O>) -> Result<u32, ReadFailed> {
    let (Some(net), true) = (net, config!(offsets.tw_death_row) != ABSENT) else {
        return Ok(BUCKETS_UNKNOWN);
    };
    if config!(offsets.tw_death_row_is_pointer) != 0 {
        return left_of(&net.target(config!(offsets.tw_death_row))?, 0);
    }
    left_of(net, config!(offsets.tw_death_row))
}

/// The same of the `inet_timewait_death_row` at `offset` of `object`.
#[inline(always)]
fn left_of<O: Object>(object: &O, offset: u32) -> Result<u32, ReadFailed> {
    // The counter has a cache line of its own; the limit stands in the next one.
    let mut row = object.near::<10>(offset);
    row.fill()?;
    let count = row.member::<u32>(offset + config!(offsets.tw_count))?;
    let max = row.member::<u32>(offset + config!(offsets.tw_max))?;
    Ok(max.saturating_sub(count.saturating_sub(config!(offsets.tw_count_of_none))))
}
