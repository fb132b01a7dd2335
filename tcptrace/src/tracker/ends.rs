//! Why a dwell ended, from what the kernel leaves at the scene.
//!
//! Pure tables of cases, each with the kernel function that makes it. What the kernel does not tell apart has
//! no reason here: `None` in an outcome is "moved on, or not known", never a guess.

use super::actor::By;
use super::owners::ECONNABORTED;
use crate::event::StateChange;
use crate::net::State;
use crate::outcome::{End, Phase};

/// `EPIPE`: `tcp_reset()` in CLOSE_WAIT.
const EPIPE: u16 = 32;
/// `ECONNRESET`: `tcp_reset()` elsewhere.
const ECONNRESET: u16 = 104;
/// `ETIMEDOUT`: `tcp_write_err()`, retransmissions or keepalive probes given up.
const ETIMEDOUT: u16 = 110;
/// `ECONNREFUSED`: `tcp_reset()` in SYN_SENT.
const ECONNREFUSED: u16 = 111;

/// FIN_WAIT2 and CLOSE this close together came from one segment. `tcp_rcv_state_process()` needs a
/// microsecond or two; a virtual CPU that is taken away in between still fits.
const ONE_SEGMENT_NS: u64 = 1_000_000;

/// The shortest time after which `tcp_keepalive_timer()` gives up an orphaned FIN_WAIT2: `tcp_fin_time()` is
/// at least 3.5 RTO, and an RTO at least 200 ms (`TCP_RTO_MIN`).
const SHORTEST_FIN_TIME_NS: u64 = 700_000_000;

/// What is known of a full socket's FIN_WAIT2.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FinWait2 {
    /// Phase; `None` when its beginning was not seen.
    pub phase: Option<Phase>,
    /// How long the phase lasted, nanoseconds, exact; `None` when its beginning was not seen.
    pub lasted_ns: Option<u64>,
    /// It began in process context, from the backlog of a socket that close() held. Then
    /// `tcp_rcv_state_process()` makes no mini at once: it leaves the end to the keepalive timer.
    pub began_in_backlog: bool,
}

/// Minis that may have gone between the kernel's refusal to make another one and the record of how many there
/// are: a microsecond, in which every CPU may remove one.
const FREED_MEANWHILE: u32 = 16;

/// Whether there was no room for another mini (`tcp_max_tw_buckets`); `None` when that is not known.
fn buckets_full(change: &StateChange) -> Option<bool> {
    match change.buckets_left? {
        0 => Some(true),
        1..=FREED_MEANWHILE => None,
        _ => Some(false),
    }
}

/// Why a full socket went to CLOSE and left no mini.
pub(super) fn of_full(change: &StateChange, by: By, fin_wait2: FinWait2) -> Option<End> {
    let by_application = matches!(by, By::Application | By::KernelThread);
    match change.sk_err {
        0 => {}
        ECONNRESET | EPIPE | ECONNREFUSED => return Some(End::Reset),
        ETIMEDOUT => return Some(End::TimedOut),
        ECONNABORTED => return Some(End::Destroyed),
        // tcp_write_err() gives up with the last ICMP error in place of ETIMEDOUT. A handshake ends at an
        // ICMP error at once (tcp_v4_err()), which is none of our reasons; and with IP_RECVERR an old error
        // may still stand on a socket that its application closes.
        _ if by_application => {}
        _ => return (!matches!(change.from, State::SynSent | State::SynRecv)).then_some(End::TimedOut),
    }
    match change.from {
        // close() with data unread, with SO_LINGER 0, or of a connection that nobody accepted
        // (inet_csk_listen_stop()): the kernel sends RST.
        State::Established | State::SynRecv | State::FinWait1 | State::CloseWait if by_application => {
            Some(End::Reset)
        }
        State::Closing => of_closing(change, by_application),
        State::FinWait2 => of_fin_wait2(change, by_application, fin_wait2),
        _ => None,
    }
    // With room left there was a mini: the record of its start was lost.
    .filter(|&end| end != End::Overflow || buckets_full(change) != Some(false))
}

/// CLOSING → CLOSE without a mini and without an error.
fn of_closing(change: &StateChange, by_application: bool) -> Option<End> {
    if by_application && !change.orphan {
        // close() of a socket that had been shut down, with data unread. (A peer's ACK taken from the backlog
        // of a socket in recv() while the buckets are full looks the same, and is far rarer.)
        return Some(End::Reset);
    }
    // tcp_rcv_state_process() goes from CLOSING to TIME_WAIT and nowhere else.
    Some(End::Overflow)
}

/// FIN_WAIT2 → CLOSE without a mini and without an error.
fn of_fin_wait2(change: &StateChange, by_application: bool, fin_wait2: FinWait2) -> Option<End> {
    if !change.orphan {
        // The application holds it: either it closes with data unread, or the peer's FIN has come (tcp_fin())
        // and tcp_time_wait() could not make a mini.
        return Some(if by_application { End::Reset } else { End::Overflow });
    }
    if change.linger2_negative {
        return Some(End::Reset);
    }
    let lasted_long = fin_wait2.lasted_ns.is_some_and(|ns| ns > ONE_SEGMENT_NS);
    if !lasted_long && by_application && !fin_wait2.began_in_backlog && fin_wait2.phase.is_some() {
        // close() of a half-closed socket: __tcp_close() calls tcp_time_wait() itself.
        return Some(End::Overflow);
    }
    if fin_wait2.began_in_backlog && fin_wait2.lasted_ns.is_some_and(|ns| ns >= SHORTEST_FIN_TIME_NS) {
        // tcp_keepalive_timer() found its time over and sent RST.
        return Some(End::TimedOut);
    }
    if lasted_long {
        // The peer's FIN. Data or RST would have left ECONNRESET.
        return Some(End::Overflow);
    }
    // FIN_WAIT2 and CLOSE in one go, after close(). Either the segment that acknowledged our FIN carried data
    // as well, which nobody can read any more (TCPAbortOnData, RST), or tcp_time_wait() could not make a mini.
    // Only the number of minis tells.
    buckets_full(change).map(|full| if full { End::Overflow } else { End::Reset })
}

/// A mini's timer was taken off the wheel, and nothing of the same timer followed.
#[derive(Clone, Copy, Debug)]
pub(super) struct EarlyEnd {
    /// The mini's substate at that time.
    pub substate: State,
    /// Who did it.
    pub by: By,
    /// The timer had run out: had the record of its expiry been lost, it would look the same.
    pub ran_out: bool,
    /// A new connection took the four-tuple.
    pub tuple_taken: bool,
}

/// Why a mini ended before its time.
pub(super) fn of_mini(early: &EarlyEnd) -> Option<End> {
    let EarlyEnd { substate, by, ran_out, tuple_taken } = *early;
    match by {
        // inet_twsk_purge(), from the kworker that clears a network namespace.
        By::KernelThread if !tuple_taken => Some(End::Destroyed),
        // tcp_abort(), asked for through sock_diag.
        By::Application if !tuple_taken => Some(End::Destroyed),
        By::Application | By::KernelThread => Some(End::Reused),
        // In FIN_WAIT2, tcp_timewait_state_process() answers a SYN by RST as it does data: the new connection
        // came afterwards.
        By::Softirq if substate == State::FinWait2 => (!ran_out).then_some(End::Reset),
        By::Softirq if tuple_taken => Some(End::Reused),
        By::Softirq => (!ran_out).then_some(End::Reset),
        By::Unknown => tuple_taken.then_some(End::Reused),
    }
}
