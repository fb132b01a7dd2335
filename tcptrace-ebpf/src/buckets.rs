//! `tcp_max_tw_buckets`: how many minis a network namespace may have.

use tcptrace_common::{config::ABSENT, record::BUCKETS_UNKNOWN};

use crate::{
    config::config,
    kernel::{ReadFailed, read},
    window::Window,
};

/// How many more minis `inet_twsk_alloc` would make in the namespace `net` (`struct net`), or
/// [`BUCKETS_UNKNOWN`].
///
/// Read when a socket is closed that would have left a mini: a refusal leaves no other trace on the socket.
#[inline(always)]
pub fn left(net: u64) -> Result<u32, ReadFailed> {
    if config!(offsets.tw_death_row) == ABSENT || net == 0 {
        return Ok(BUCKETS_UNKNOWN);
    }
    let mut address = net.wrapping_add(u64::from(config!(offsets.tw_death_row)));
    if config!(offsets.tw_death_row_is_pointer) != 0 {
        address = read(address, 0)?;
    }
    // The counter has a cache line of its own; the limit stands in the next one.
    let mut row = Window::<10>::new(address, 0);
    row.fill()?;
    let count = row.member::<u32>(config!(offsets.tw_count))?;
    let max = row.member::<u32>(config!(offsets.tw_max))?;
    Ok(max.saturating_sub(count.saturating_sub(config!(offsets.tw_count_of_none))))
}
