//! The filters, the same on every command.

use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use super::values;
use crate::filter::CommPattern;
use crate::net::State;

/// Which connections to look at. Several values of one option are alternatives, different options must all
/// hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Filters")]
pub struct FilterArgs {
    /// Port on either side; 80,443 for either of them, as in every filter. Different filters must all hold.
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = values::port)]
    pub port: Vec<u16>,

    /// Local port.
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = values::port)]
    pub lport: Vec<u16>,

    /// Remote port.
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = values::port)]
    pub rport: Vec<u16>,

    /// Address or network on either side, such as 10.0.0.5, 10.0.0.0/8 or 2001:db8::/32.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = values::network)]
    pub addr: Vec<IpNet>,

    /// Process id of the owner. Connections whose owner is not known are left out.
    #[arg(long, value_name = "PID", value_delimiter = ',', value_parser = values::pid)]
    pub pid: Vec<u32>,

    /// Task name of the owner as in /proc/PID/comm, 15 bytes at most; * stands for anything: 'nginx*'.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = values::comm)]
    pub comm: Vec<CommPattern>,

    /// Network namespace: its name in `ip netns`, its inode number, or the id of a process in it.
    #[arg(long, value_name = "NAME|INODE|PID", value_delimiter = ',', value_parser = values::netns)]
    pub netns: Vec<String>,

    /// Container or Kubernetes pod of the owner: its id or the beginning of it, as `docker ps` shows it.
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = values::container)]
    pub container: Vec<String>,

    /// IPv4 only, v4-mapped IPv6 included.
    #[arg(short = '4', long = "ipv4", conflicts_with = "ipv6")]
    pub ipv4: bool,

    /// IPv6 only.
    #[arg(short = '6', long = "ipv6")]
    pub ipv6: bool,

    /// TCP state, such as TIME_WAIT or close-wait: transitions out of it and into it, or its figures alone.
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    pub state: Vec<State>,

    /// Only what lasted, or has lasted, at least this long: 500ms, 10s, 1h30m.
    #[arg(long, value_name = "TIME", value_parser = values::min_dwell)]
    pub min_dwell: Option<Duration>,
}
