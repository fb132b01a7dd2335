//! The 4-tuple and namespace that every kind of socket begins with (`struct sock_common`), and the filters
//! on them.

use tcptrace_common::config::ABSENT;

use crate::{config::config, kernel::ReadFailed, object::Object, window::Window};

/// `AF_INET`.
pub const AF_INET: u16 = 2;
/// `AF_INET6`.
pub const AF_INET6: u16 = 10;

/// The first words of a `sock_common`, with which both `sock` and `inet_timewait_sock` begin. Addresses, ports,
/// family, state and namespace are within its first 88 bytes on every kernel looked at.
pub type Common = Window<12>;

/// A window on the `sock_common` at `address`, to be filled.
#[inline(always)]
pub fn common(address: u64) -> Common {
    Window::new(address, 0)
}

/// A network namespace.
pub struct Namespace<O: Object> {
    /// `struct net`; `None` on a kernel without namespaces (CONFIG_NET_NS).
    pub net: Option<O::Other>,
    /// Its inode number; 0 without.
    pub inode: u32,
}

impl<O: Object> Namespace<O> {
    /// That of a socket.
    ///
    /// To be asked for before the program branches. For each path on which a pointer is loaded by way of a typed argument
    /// the verifier compares the names of all the kernel's types with names of its own, several times
    /// (`btf_nested_type_is_trusted`): a millisecond each.
    #[inline(always)]
    pub fn of(common: &O) -> Result<Self, ReadFailed> {
        if config!(offsets.skc_net) == ABSENT {
            return Ok(Self { net: None, inode: 0 });
        }
        let net = common.target(config!(offsets.skc_net))?;
        let inode = net.member(config!(offsets.net_inum))?;
        Ok(Self { net: Some(net), inode })
    }
}

/// A socket's place in the network, in network byte order.
pub struct Flow<'a, O: Object> {
    /// Where it stands.
    pub common: &'a O,
    /// The namespace it is in.
    pub namespace: Namespace<O>,
    family: u16,
    /// Local port, big endian; 0 while there is none.
    pub local_port: u16,
    /// Remote port, big endian.
    pub remote_port: u16,
}

impl<'a, O: Object> Flow<'a, O> {
    /// Completes what `common` says. `None` when a filter rules it out or the family is not IP.
    ///
    /// `local_port` is big endian. `listening` says that the socket is or was a listener: the remote side of
    /// the child that it has just made may still be the listener's (`inet_csk_clone_lock` before 6.18), and
    /// an IPv6 listener may serve both families, so neither is filtered on.
    #[inline(always)]
    pub fn wanted(
        common: &'a O,
        namespace: Namespace<O>,
        local_port: u16,
        listening: bool,
    ) -> Result<Option<Self>, ReadFailed> {
        let family = common.member::<u16>(config!(offsets.skc_family))?;
        if family != AF_INET && family != AF_INET6 {
            return Ok(None);
        }
        let remote_port = common.member::<u16>(config!(offsets.skc_dport))?;
        let flow = Self { common, namespace, family, local_port, remote_port };
        if !flow.has_wanted_port(listening) || !flow.has_wanted_family(listening)? {
            return Ok(None);
        }
        let wanted = config!(filter.netns);
        if wanted != 0 && flow.namespace.inode != wanted {
            return Ok(None);
        }
        Ok(Some(flow))
    }

    /// Local address, IPv4 as v4-mapped IPv6.
    #[inline(always)]
    pub fn local(&self) -> Result<[u32; 4], ReadFailed> {
        self.address(config!(offsets.skc_rcv_saddr), config!(offsets.skc_v6_rcv_saddr))
    }

    /// Remote address, IPv4 as v4-mapped IPv6.
    #[inline(always)]
    pub fn remote(&self) -> Result<[u32; 4], ReadFailed> {
        self.address(config!(offsets.skc_daddr), config!(offsets.skc_v6_daddr))
    }

    #[inline(always)]
    fn address(&self, v4: u32, v6: u32) -> Result<[u32; 4], ReadFailed> {
        if self.family == AF_INET6 && v6 != ABSENT {
            self.common.address16(v6)
        } else {
            Ok([0, 0, V4_MAPPED, self.common.member(v4)?])
        }
    }

    /// Each filter is asked for by a branch of its own, which the verifier removes when it filters nothing.
    #[inline(always)]
    fn has_wanted_port(&self, listening: bool) -> bool {
        let either = config!(filter.either_port);
        if either != 0 && !self.local_may_be(either) && !self.remote_may_be(either, listening) {
            return false;
        }
        let local = config!(filter.local_port);
        if local != 0 && !self.local_may_be(local) {
            return false;
        }
        let remote = config!(filter.remote_port);
        remote == 0 || self.remote_may_be(remote, listening)
    }

    #[inline(always)]
    fn local_may_be(&self, port: u16) -> bool {
        self.local_port == 0 || u16::from_be(self.local_port) == port
    }

    #[inline(always)]
    fn remote_may_be(&self, port: u16, listening: bool) -> bool {
        listening || u16::from_be(self.remote_port) == port
    }

    #[inline(always)]
    fn has_wanted_family(&self, listening: bool) -> Result<bool, ReadFailed> {
        let wanted = config!(filter.family);
        if wanted == 0 {
            return Ok(true);
        }
        if self.family == AF_INET {
            return Ok(wanted == AF_INET);
        }
        let is_v4 = is_v4_mapped(self.remote()?) || is_v4_mapped(self.local()?);
        Ok(listening || is_v4 == (wanted == AF_INET))
    }
}

/// The third word of an IPv4 address written as IPv6, `::ffff:a.b.c.d`.
const V4_MAPPED: u32 = 0xffff_u32.to_be();

#[inline(always)]
fn is_v4_mapped(address: [u32; 4]) -> bool {
    address[0] == 0 && address[1] == 0 && address[2] == V4_MAPPED
}
