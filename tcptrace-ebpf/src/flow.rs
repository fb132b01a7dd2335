//! The 4-tuple and namespace that every kind of socket begins with (`struct sock_common`), and the filters
//! on them.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use tcptrace_common::config::ABSENT;

use crate::{
    config::config,
    kernel::{ReadFailed, read},
};

/// `AF_INET`.
pub const AF_INET: u16 = 2;
/// `AF_INET6`.
pub const AF_INET6: u16 = 10;

/// How much of `sock_common` is read at once. Addresses, ports, family, state and namespace are within its
/// first 88 bytes on every kernel looked at; a member beyond the window is read on its own, and as the
/// offsets are constants when the program is verified, the choice costs nothing.
const WINDOW: usize = 96;

/// The first bytes of a `sock_common`.
pub struct Common {
    address: u64,
    bytes: MaybeUninit<[u64; WINDOW / 8]>,
}

impl Common {
    /// Reads the window at `address`, a `sock` or an `inet_timewait_sock`: both begin with `sock_common`.
    #[inline(always)]
    pub fn read(address: u64) -> Result<Self, ReadFailed> {
        let mut bytes = MaybeUninit::uninit();
        // SAFETY: the destination is as long as said; the helper checks the source.
        let error = unsafe {
            bpf_probe_read_kernel(bytes.as_mut_ptr() as *mut _, WINDOW as u32, address as *const _)
        };
        if error == 0 {
            Ok(Self { address, bytes })
        } else {
            Err(ReadFailed { offset: 0, error: error as i32 })
        }
    }

    /// The member at `offset`. `T` is an integer.
    #[inline(always)]
    pub fn member<T: Copy>(&self, offset: u32) -> Result<T, ReadFailed> {
        if offset as usize <= WINDOW - size_of::<T>() {
            // SAFETY: within the window, which the helper has filled. The kernel aligns the member, the window
            // begins aligned to 8 as the structure does, and any bits are a `T`.
            Ok(unsafe { self.bytes.as_ptr().cast::<T>().byte_add(offset as usize).read() })
        } else {
            read(self.address, offset)
        }
    }

    /// Inode number of the network namespace; 0 on a kernel without namespaces (CONFIG_NET_NS).
    #[inline(always)]
    fn netns(&self) -> Result<u32, ReadFailed> {
        if config!(offsets.skc_net) == ABSENT {
            return Ok(0);
        }
        read(self.member(config!(offsets.skc_net))?, config!(offsets.net_inum))
    }
}

/// A socket's place in the network, in network byte order.
pub struct Flow<'a> {
    common: &'a Common,
    family: u16,
    /// Local port, big endian; 0 while there is none.
    pub local_port: u16,
    /// Remote port, big endian.
    pub remote_port: u16,
    /// Network namespace inode.
    pub netns: u32,
}

impl<'a> Flow<'a> {
    /// Completes what `common` says. `None` when a filter rules it out or the family is not IP.
    ///
    /// `local_port` is big endian. `listening` says that the socket is or was a listener: the remote side of
    /// the child that it has just made may still be the listener's (`inet_csk_clone_lock` before 6.18), and
    /// an IPv6 listener may serve both families, so neither is filtered on.
    #[inline(always)]
    pub fn wanted(common: &'a Common, local_port: u16, listening: bool) -> Result<Option<Self>, ReadFailed> {
        let family = common.member::<u16>(config!(offsets.skc_family))?;
        if family != AF_INET && family != AF_INET6 {
            return Ok(None);
        }
        let remote_port = common.member::<u16>(config!(offsets.skc_dport))?;
        let netns = common.netns()?;
        let flow = Self { common, family, local_port, remote_port, netns };
        if !flow.has_wanted_port(listening) || !flow.has_wanted_family(listening)? {
            return Ok(None);
        }
        let wanted = config!(filter.netns);
        if wanted != 0 && netns != wanted {
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
            self.common.member(v6)
        } else {
            Ok([0, 0, V4_MAPPED, self.common.member(v4)?])
        }
    }

    #[inline(always)]
    fn has_wanted_port(&self, listening: bool) -> bool {
        let (local, remote) = (u16::from_be(self.local_port), u16::from_be(self.remote_port));
        let local_is = |port| local == port || local == 0;
        let remote_is = |port| remote == port || listening;
        let (either_port, local_port, remote_port) =
            (config!(filter.either_port), config!(filter.local_port), config!(filter.remote_port));
        (either_port == 0 || local_is(either_port) || remote_is(either_port))
            && (local_port == 0 || local_is(local_port))
            && (remote_port == 0 || remote_is(remote_port))
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
