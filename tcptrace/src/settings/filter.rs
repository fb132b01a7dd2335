//! Filter options, validated: names resolved, contradictions refused.

use ipnet::IpNet;

use super::UsageError;
use crate::cli::FilterArgs;
use crate::filter::{Container, Filter, Netns, Resolver, StateSet, Unresolved};
use crate::net::Family;

impl Filter {
    /// Validates.
    pub fn from_args(args: &FilterArgs, resolver: &dyn Resolver) -> Result<Self, UsageError> {
        let family = match (args.ipv4, args.ipv6) {
            (true, false) => Some(Family::Ipv4),
            (false, true) => Some(Family::Ipv6),
            // Both at once is refused by clap.
            _ => None,
        };
        check_family(family, &args.addr)?;
        check_ports(args)?;
        let unresolved = |option: &str, error: Unresolved, hint: &str| {
            UsageError::new(format!("{option}: {error}")).hint(hint)
        };
        for &pid in &args.pid {
            resolver.pid(pid).map_err(|error| {
                unresolved(
                    "--pid",
                    error,
                    "the process must be there when tracing begins; --comm finds later ones too",
                )
            })?;
        }
        let namespaces = args.netns.iter().map(|wanted| {
            let inode = resolver.netns(wanted).map_err(|error| {
                unresolved("--netns", error, "lsns --type net lists namespaces, ip netns those with a name")
            })?;
            // A process may be gone later, and no recording knows them all.
            let lasting = if wanted.parse::<u32>().is_ok() { inode.to_string() } else { wanted.clone() };
            Ok(Netns { wanted: lasting, inode })
        });
        let containers = args.container.iter().map(|wanted| {
            let cgroup_ids = resolver.container(wanted).map_err(|error| {
                unresolved("--container", error, "docker ps, podman ps and crictl ps list ids of containers")
            })?;
            Ok(Container { wanted: wanted.clone(), cgroup_ids })
        });
        let states: StateSet = args.state.iter().copied().collect();
        Ok(Self {
            ports: distinct(&args.port),
            local_ports: distinct(&args.lport),
            remote_ports: distinct(&args.rport),
            networks: args.addr.clone(),
            pids: distinct(&args.pid),
            comms: args.comm.clone(),
            namespaces: namespaces.collect::<Result<_, UsageError>>()?,
            containers: containers.collect::<Result<_, UsageError>>()?,
            family,
            states: if states.is_empty() { StateSet::ALL } else { states },
            // A year, the longest that is taken, is far below 2^64 ns.
            min_dwell_ns: args.min_dwell.and_then(|dwell| u64::try_from(dwell.as_nanos()).ok()),
        })
    }
}

/// Sorted, each once: a port given twice is still one port, which the kernel can filter by.
fn distinct<T: Ord + Copy>(values: &[T]) -> Vec<T> {
    values.iter().copied().collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

/// An address of the other family matches nothing.
fn check_family(family: Option<Family>, networks: &[IpNet]) -> Result<(), UsageError> {
    let (option, other, fits): (_, _, fn(&IpNet) -> bool) = match family {
        None => return Ok(()),
        Some(Family::Ipv4) => ("-4", "IPv6", |net| net.addr().is_ipv4()),
        Some(Family::Ipv6) => ("-6", "IPv4", |net| net.addr().is_ipv6()),
    };
    match networks.iter().find(|net| !fits(net)) {
        None => Ok(()),
        Some(net) => Err(UsageError::new(format!(
            "{option} --addr {net}: the address is {other}; no connection is both"
        ))
        .hint(format!("leave out {option}, or the address"))),
    }
}

/// With both --lport and --rport given, one of them must be able to be the --port as well.
fn check_ports(args: &FilterArgs) -> Result<(), UsageError> {
    let possible = args.port.is_empty()
        || args.lport.is_empty()
        || args.rport.is_empty()
        || args.port.iter().any(|port| args.lport.contains(port) || args.rport.contains(port));
    if possible {
        return Ok(());
    }
    Err(UsageError::new("--port, --lport and --rport name different ports; no connection has three")
        .hint("--port means either side: leave it out, or leave out one of the others"))
}
