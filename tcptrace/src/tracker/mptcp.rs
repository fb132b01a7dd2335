//! One rule: which socket of an MPTCP connection speaks for which state.
//!
//! An MPTCP connection is one socket that the application holds and one or more TCP subflows below it, and
//! `inet_sock_set_state` reports them all. While the application holds on to a connection that the peer has
//! closed, only the MPTCP socket stands in CLOSE_WAIT; its subflows pass through when it is closed. A leak must
//! be seen, and seen once, so the MPTCP socket speaks for CLOSE_WAIT (and for LISTEN, where both stand), and
//! the subflows, which are what goes over the wire and rests in TIME_WAIT, for everything else.
//!
//! A dwell is reported, and a state counted as open, by the socket that speaks for it. A transition belongs to
//! the state that it ends; at a connection's beginning, where none ends, to the state that begins.

use crate::event::Protocol;
use crate::net::State;

/// Whether a socket of this protocol speaks for this state.
pub(super) fn speaks_for(protocol: Protocol, state: State) -> bool {
    let held_by_application = matches!(state, State::CloseWait | State::Listen);
    match protocol {
        Protocol::Tcp => true,
        Protocol::Mptcp => held_by_application,
        Protocol::MptcpSubflow => !held_by_application,
    }
}
