//! TCP state numbers as the kernel counts them (`include/net/tcp_states.h`).

/// Data flows.
pub const ESTABLISHED: u8 = 1;
/// An active open waits for the peer's SYN+ACK.
pub const SYN_SENT: u8 = 2;
/// A child of a listener whose handshake has just completed or is about to.
pub const SYN_RECV: u8 = 3;
/// We sent FIN, the peer has not acknowledged it.
pub const FIN_WAIT1: u8 = 4;
/// Our FIN is acknowledged, the peer has not sent its own.
pub const FIN_WAIT2: u8 = 5;
/// Both FINs are exchanged and we closed first: the four-tuple rests.
pub const TIME_WAIT: u8 = 6;
/// No connection.
pub const CLOSE: u8 = 7;
/// The peer sent FIN, our application has not closed.
pub const CLOSE_WAIT: u8 = 8;
/// Our application closed second, the peer has not acknowledged our FIN.
pub const LAST_ACK: u8 = 9;
/// A passive socket.
pub const LISTEN: u8 = 10;
/// Both sides closed at once, our FIN is not acknowledged.
pub const CLOSING: u8 = 11;
/// A request socket; never reported by the tracepoint, but shown by `sock_diag`.
pub const NEW_SYN_RECV: u8 = 12;
/// The number of slots an array indexed by state needs.
pub const SLOTS: usize = 13;
