//! The mini (`struct inet_timewait_sock`), the small socket that stands for a connection in TIME_WAIT and in
//! orphaned FIN_WAIT2, seen through its timer.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns};
use tcptrace_common::record::{FLAG_PROCESS, KIND_MINI_CANCEL, KIND_MINI_START, MiniRecord};

use crate::{
    config::config,
    context,
    flow::{self, Flow, Namespace},
    kernel::{ReadFailed, read},
    object::Object,
    ring, succession, takeover,
};

/// The mini that `timer` (`struct timer_list *`) belongs to, or `None` for any other timer of the host.
#[inline(always)]
pub fn of_timer(timer: &impl Object) -> Result<Option<u64>, ReadFailed> {
    if timer.member::<u64>(config!(offsets.timer_function))? != config!(tw_timer_handler) {
        return Ok(None);
    }
    Ok(Some(timer.address().wrapping_sub(config!(offsets.tw_timer).into())))
}

/// Reports what happened to the timer, unless a filter rules the mini out.
#[inline(always)]
pub fn report<O: Object>(ctx: *const c_void, kind: u8, timer: &O) -> Result<(), ReadFailed> {
    let Some(mini) = of_timer(timer)? else { return Ok(()) };
    let mut common = flow::common(mini);
    common.read()?;
    // `tw_num` is the socket's `inet_num` (`inet_twsk_alloc`) and never given up.
    let local_port = common.get::<u16>(config!(offsets.skc_num))?.to_be();
    let Some(place) = Flow::wanted(&common, Namespace::of(&common)?, local_port, false)? else {
        return Ok(());
    };
    let substate = read::<u8>(mini, config!(offsets.tw_substate))?;
    let expires = timer.member::<u64>(config!(offsets.timer_expires))?;
    // SAFETY: neither helper takes anything.
    let (now_ns, jiffies) = unsafe { (bpf_ktime_get_ns(), bpf_jiffies64()) };
    let left_jiffies = expires.wrapping_sub(jiffies) as i64;
    if kind == KIND_MINI_CANCEL && left_jiffies > 0 {
        takeover::may_follow(place.namespace.inode, jiffies);
    }
    let (local, remote) = (place.local()?, place.remote()?);
    let task = O::task();
    let flags = context::flags::<O>(ctx, &task);
    let identity = succession::identity(&place)?;

    let Some(mut entry) = ring::reserve::<MiniRecord>() else { return Ok(()) };
    let record = entry.as_mut_ptr();
    // SAFETY: the record is reserved, aligned to 8 and ours until it is submitted; every field is written.
    unsafe {
        (*record).kind = kind;
        (*record).flags = flags;
        (*record).substate = substate;
        (*record).pad = 0;
        (*record).netns = place.namespace.inode;
        (*record).time_ns = now_ns;
        (*record).mini = mini;
        (*record).left_jiffies = left_jiffies;
        ((*record).pid, (*record).tid) = if flags & FLAG_PROCESS != 0 { O::pid_tid(&task) } else { (0, 0) };
        (*record).local_port = place.local_port;
        (*record).remote_port = place.remote_port;
        (*record).pad2 = 0;
        (&raw mut (*record).local).cast::<[u32; 4]>().write(local);
        (&raw mut (*record).remote).cast::<[u32; 4]>().write(remote);
    }
    ring::submit(entry, now_ns);
    if kind == KIND_MINI_START {
        succession::begun(identity);
    }
    Ok(())
}
