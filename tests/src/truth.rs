//! What the kernel says by another road than `sock_diag` and tracepoints: /proc/net of the calling thread's
//! network namespace, and `ss` where a person would ask it.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::spawn;

/// One line of /proc/net/tcp or tcp6.
#[derive(Clone, Debug)]
pub struct Socket {
    /// Local address, v4-mapped shown as IPv4.
    pub local: SocketAddr,
    /// Remote address.
    pub remote: SocketAddr,
    /// State number; minis show their substate.
    pub state: u8,
    /// Unread bytes, or the accept queue of a listener.
    pub recv_queue: u32,
    /// `tr`: 3 is the TIME_WAIT timer, so a mini.
    pub timer: u8,
    /// Seconds left on it.
    pub timer_left_s: f64,
    /// 0 for minis and orphans.
    pub inode: u64,
}

impl Socket {
    /// A TIME_WAIT mini (in TIME_WAIT or FIN_WAIT2).
    #[must_use]
    pub fn is_mini(&self) -> bool {
        self.timer == 3
    }
}

/// State numbers as /proc/net/tcp prints them.
pub mod state {
    /// FIN_WAIT2.
    pub const FIN_WAIT2: u8 = 5;
    /// TIME_WAIT.
    pub const TIME_WAIT: u8 = 6;
    /// CLOSE_WAIT.
    pub const CLOSE_WAIT: u8 = 8;
}

/// Every TCP socket of this namespace.
///
/// # Errors
/// When /proc cannot be read or looks otherwise than known.
pub fn sockets() -> Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for file in ["tcp", "tcp6"] {
        let path = format!("/proc/thread-self/net/{file}");
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        for line in text.lines().skip(1) {
            sockets.push(parse(line).with_context(|| format!("{path}: {line:?}"))?);
        }
    }
    Ok(sockets)
}

/// The socket whose local end is `local` and whose remote end is `remote`.
///
/// # Errors
/// As [`sockets`].
pub fn socket(local: SocketAddr, remote: SocketAddr) -> Result<Option<Socket>> {
    Ok(sockets()?.into_iter().find(|socket| socket.local == local && socket.remote == remote))
}

/// Whether that socket is a mini in this substate.
///
/// # Errors
/// As [`sockets`].
pub fn is_mini(local: SocketAddr, remote: SocketAddr, substate: u8) -> Result<bool> {
    Ok(socket(local, remote)?.is_some_and(|socket| socket.is_mini() && socket.state == substate))
}

/// How many sockets are in `state`.
///
/// # Errors
/// As [`sockets`].
pub fn count(state: u8) -> Result<usize> {
    Ok(sockets()?.iter().filter(|socket| socket.state == state).count())
}

fn parse(line: &str) -> Result<Socket> {
    let fields: Vec<_> = line.split_whitespace().collect();
    ensure!(fields.len() >= 10, "too few columns");
    let (timer, left) = fields[5].split_once(':').context("timer")?;
    let (_, recv_queue) = fields[4].split_once(':').context("queues")?;
    Ok(Socket {
        local: parse_addr(fields[1])?,
        remote: parse_addr(fields[2])?,
        state: u8::from_str_radix(fields[3], 16)?,
        recv_queue: u32::from_str_radix(recv_queue, 16)?,
        timer: u8::from_str_radix(timer, 16)?,
        // In USER_HZ, which is 100 on every architecture in use.
        timer_left_s: f64::from(u32::from_str_radix(left, 16)?) / 100.0,
        inode: fields[9].parse()?,
    })
}

/// `0100007F:1F90`: each 32-bit word in the machine's byte order.
fn parse_addr(text: &str) -> Result<SocketAddr> {
    let (addr, port) = text.split_once(':').context("address")?;
    let mut octets = Vec::new();
    for word in addr.as_bytes().chunks(8) {
        octets.extend(u32::from_str_radix(std::str::from_utf8(word)?, 16)?.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(octets.as_slice()) {
        Ok(v4) => IpAddr::V4(Ipv4Addr::from(v4)),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(octets.as_slice())?).to_canonical(),
    };
    Ok(SocketAddr::new(ip, u16::from_str_radix(port, 16)?))
}

/// The counters that `nstat` shows, of this namespace.
#[derive(Clone, Debug, Default)]
pub struct Counters(HashMap<String, u64>);

impl Counters {
    /// Reads them.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn read() -> Result<Self> {
        let mut counters = HashMap::new();
        for file in ["snmp", "netstat"] {
            let text = fs::read_to_string(format!("/proc/thread-self/net/{file}"))?;
            let lines: Vec<_> = text.lines().collect();
            for pair in lines.chunks_exact(2) {
                let (names, values) = (pair[0].split_whitespace(), pair[1].split_whitespace());
                let protocol = pair[0].split(':').next().unwrap_or_default().to_owned();
                for (name, value) in names.zip(values).skip(1) {
                    // Some are signed (MaxConn -1): of no interest here.
                    if let Ok(value) = value.parse() {
                        counters.insert(format!("{protocol}{name}"), value);
                    }
                }
            }
        }
        Ok(Self(counters))
    }

    /// By the name that `nstat` prints (`TcpExtTCPTimeWaitOverflow`, `TcpActiveOpens`); 0 when unknown would
    /// hide a misspelling, so that is an error.
    ///
    /// # Errors
    /// When this kernel has no such counter.
    pub fn get(&self, name: &str) -> Result<u64> {
        self.0.get(name).copied().with_context(|| format!("no counter {name}"))
    }
}

/// TIME_WAIT minis of this namespace, both substates (`/proc/net/sockstat`).
///
/// # Errors
/// When /proc cannot be read.
pub fn minis() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/sockstat")?;
    let mut words =
        text.lines().find(|line| line.starts_with("TCP:")).context("sockstat")?.split_whitespace();
    words.find(|&word| word == "tw").context("tw")?;
    Ok(words.next().context("tw")?.parse()?)
}

/// The running kernel's version: 6.1 of `6.1.0-56-cloud-amd64`.
///
/// # Errors
/// When it has none of that form.
pub fn kernel() -> Result<(u32, u32)> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|other: char| !other.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => anyhow::bail!("no version of a kernel: {release:?}"),
    }
}

/// Whether `ss` is installed.
#[must_use]
pub fn has_ss() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join("ss").is_file())
}

/// BPF links that a process holds.
#[must_use]
pub fn attached(pid: u32) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
    descriptors
        .into_iter()
        .flatten()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.to_string_lossy().contains("bpf_link"))
        .count()
}

/// `ss -H -tanoe` with further arguments, in this namespace; `None` where it is not installed.
///
/// # Errors
/// When it fails.
pub fn ss(args: &[&str]) -> Result<Option<String>> {
    let mut command = Command::new("ss");
    command.args(["-H", "-tanoe"]).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = match spawn::start(&mut command) {
        Ok(child) => child.wait_with_output()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    ensure!(output.status.success(), "ss: {}", String::from_utf8_lossy(&output.stderr));
    Ok(Some(String::from_utf8(output.stdout)?))
}
