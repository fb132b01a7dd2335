//! tcptrace's BPF programs: tracepoints that read, filter, reserve and submit. They keep no state about
//! connections and know no kernel offset as a literal; see `config` for where those come from.
//!
//! One file per hook, each citing the tracepoint's signature; every map is in `maps`.
#![no_std]
#![no_main]

mod buckets;
mod config;
mod connect_stack;
mod context;
mod eof;
mod flow;
mod inet_sock_set_state;
mod kernel;
mod maps;
mod mini;
mod object;
mod ring;
mod sock;
mod sock_recv_length;
mod sock_recv_length_stack;
mod sock_send_length;
mod stack;
mod succession;
mod takeover;
mod timer_cancel;
mod timer_expire_entry;
mod timer_start;
mod window;

/// Tracing helpers are open to GPL-compatible programs only; the crate is under MIT as well.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached: no program panics, and the verifier would refuse a loop that it can enter.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
