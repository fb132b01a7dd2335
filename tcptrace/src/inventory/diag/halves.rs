//! A namespace with many sockets is listed by two threads at once, each of which asks for its half.
//!
//! A dump's work is done by the kernel on the thread that receives it: about 0.8 µs for a socket that is wanted and a
//! quarter of that for one that is only passed over. Two halves so took 59 to 80 % of
//! the time of the whole, on two cores that others used as well.
//! What decides is the four-tuple, which no socket ever changes: none is listed twice or passed over for being in
//! another state by the time that the other half is asked for.

use crate::inventory::sysctl::{self, LocalPorts};

/// `struct inet_diag_bc_op`: code, bytes to skip when true, bytes to skip when false. Four bytes beyond the end means
/// that the socket is not wanted.
const OP_BYTES: u16 = 4;
const INET_DIAG_BC_JMP: u8 = 1;
const INET_DIAG_BC_S_GE: u8 = 2;
const INET_DIAG_BC_S_LE: u8 = 3;
const INET_DIAG_BC_D_GE: u8 = 4;
const INET_DIAG_BC_D_LE: u8 = 5;

/// Which sockets of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of them.
    Whole,
    /// Those with neither port above this.
    UpTo(u16),
    /// Those with a port above this.
    Above(u16),
}

impl Part {
    /// The filter for `INET_DIAG_REQ_BYTECODE`; `None` where there is none. A jump may only lead to where the chain of
    /// those that are true passes (`inet_diag_bc_audit`), so that "or" takes a jump of its own.
    pub(super) fn bytecode(self) -> Option<Vec<u8>> {
        let compare = |code, port: u16, no: u16| [op(code, 8, no), op(0, 0, port)].concat();
        match self {
            Self::Whole => None,
            Self::UpTo(port) => {
                Some([compare(INET_DIAG_BC_S_LE, port, 20), compare(INET_DIAG_BC_D_LE, port, 12)].concat())
            }
            Self::Above(port) => {
                let next = port.saturating_add(1);
                let source = compare(INET_DIAG_BC_S_GE, next, 12);
                // Taken when the source port is enough: over the other comparison, to the end.
                let done = op(INET_DIAG_BC_JMP, OP_BYTES as u8, 12);
                Some([source, done.to_vec(), compare(INET_DIAG_BC_D_GE, next, 12)].concat())
            }
        }
    }
}

fn op(code: u8, yes: u8, no: u16) -> [u8; OP_BYTES as usize] {
    let [low, high] = no.to_ne_bytes();
    [code, yes, low, high]
}

/// Where to halve the sockets of the namespace that the calling thread is in; `None` where that would gain nothing.
///
/// Ephemeral ports are drawn evenly from a range, and nearly every connection has one at one of its ends: the middle
/// of this namespace's range halves them well. Peers with another range make the halves unequal, which costs time and
/// nothing else.
pub(super) fn middle_port() -> Option<u16> {
    if std::thread::available_parallelism().map_or(1, std::num::NonZero::get) < 2 {
        return None;
    }
    let range = sysctl::read("net.ipv4.ip_local_port_range");
    LocalPorts::parse(range.value()?, "").map(|ports| ports.middle())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel runs it (`inet_diag_bc_run`).
    fn wants(bytecode: &[u8], source: u16, destination: u16) -> bool {
        let (mut at, mut left) = (0, bytecode.len() as i64);
        while left > 0 {
            let no = |at: usize| u16::from_ne_bytes([bytecode[at + 2], bytecode[at + 3]]);
            let bound = no(at + 4);
            let yes = match bytecode[at] {
                INET_DIAG_BC_JMP => false,
                INET_DIAG_BC_S_GE => source >= bound,
                INET_DIAG_BC_S_LE => source <= bound,
                INET_DIAG_BC_D_GE => destination >= bound,
                INET_DIAG_BC_D_LE => destination <= bound,
                other => panic!("code {other}"),
            };
            let skip = if yes { usize::from(bytecode[at + 1]) } else { usize::from(no(at)) };
            at += skip;
            left -= skip as i64;
        }
        left == 0
    }

    #[test]
    fn every_socket_is_in_one_half() {
        let ports = [0, 1, 80, 40_000, 40_001, 40_002, 65_535];
        let lower = Part::UpTo(40_001).bytecode().expect("a filter");
        let upper = Part::Above(40_001).bytecode().expect("a filter");
        for source in ports {
            for destination in ports {
                let is_low = source.max(destination) <= 40_001;
                assert_eq!(wants(&lower, source, destination), is_low, "{source} {destination}");
                assert_eq!(wants(&upper, source, destination), !is_low, "{source} {destination}");
            }
        }
        assert_eq!(Part::Whole.bytecode(), None);
    }
}
