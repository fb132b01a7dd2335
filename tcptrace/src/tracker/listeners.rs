//! Local ports that anybody was seen to listen on.
//!
//! Where the beginnings of connections are left in the kernel, each socket that is first seen when it closes may have
//! been accepted by a listener, whose owner is then its own until it is known better. Half of them are clients, on
//! ports that nobody ever listened on: one bit says so, where looking for the listener takes four look-ups in a table
//! that no cache holds.

/// A bit for each port, on this host's namespaces together: it only ever says "perhaps".
#[derive(Clone, Debug)]
pub(super) struct ListeningPorts(Box<[u64; 1024]>);

impl Default for ListeningPorts {
    fn default() -> Self {
        Self(Box::new([0; 1024]))
    }
}

impl ListeningPorts {
    /// Somebody listens on this port. Never taken back: ports are few, and listeners come again.
    pub(super) fn add(&mut self, port: u16) {
        self.0[usize::from(port >> 6)] |= 1 << (port & 63);
    }

    /// Whether anybody may listen on this port.
    pub(super) fn may_include(&self, port: u16) -> bool {
        self.0[usize::from(port >> 6)] >> (port & 63) & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_told_apart() {
        let mut ports = ListeningPorts::default();
        for port in [0, 63, 64, 8080, u16::MAX] {
            assert!(!ports.may_include(port));
            ports.add(port);
            assert!(ports.may_include(port));
        }
        assert!(!ports.may_include(8081) && !ports.may_include(62));
    }
}
