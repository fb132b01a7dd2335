//! Single values of options: text in, number out, or an error in words that fits behind clap's
//! `invalid value 'x' for '--option <X>': `.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use crate::filter::CommPattern;
use crate::settings::duration;
use crate::tui::player::SPEEDS;

/// Smallest ring buffer: sixteen pages, a few hundred events.
const RING_MIN_BYTES: u64 = 64 << 10;
/// Largest ring buffer: the kernel pins it in memory and maps its data twice (`bpf_ringbuf_area_alloc`).
const RING_MAX_BYTES: u64 = 1 << 30;
/// Longest time an option takes: a year.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);
/// PID_MAX_LIMIT on 64-bit kernels (`include/linux/threads.h`).
const PID_MAX: u32 = 4 << 20;

type Parsed<T> = Result<T, String>;

/// `--duration`.
pub fn tracing_duration(text: &str) -> Parsed<Duration> {
    duration::parse_in(text, Duration::from_millis(100)..=LONGEST).map_err(|error| error.to_string())
}

/// `--min-dwell`.
pub fn min_dwell(text: &str) -> Parsed<Duration> {
    duration::parse_in(text, Duration::from_micros(1)..=LONGEST).map_err(|error| error.to_string())
}

/// `--min-age`.
pub fn min_age(text: &str) -> Parsed<Duration> {
    duration::parse_in(text, Duration::ZERO..=LONGEST).map_err(|error| error.to_string())
}

/// `--interval`.
pub fn interval(text: &str) -> Parsed<Duration> {
    duration::parse_in(text, Duration::from_secs(1)..=Duration::from_secs(86_400))
        .map_err(|error| error.to_string())
}

/// How many times faster than it happened a recording is played; compared bit by bit, because options are.
#[derive(Clone, Copy, Debug)]
pub struct Speed(pub f64);

impl PartialEq for Speed {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Speed {}

/// `--speed`: with or without the sign that the screen shows it with.
pub fn speed(text: &str) -> Parsed<Speed> {
    let number = text.strip_suffix(['x', '×']).or(text.strip_prefix(['x', '×'])).unwrap_or(text);
    let speed = number.parse::<f64>().ok().filter(|times| SPEEDS.contains(times));
    speed.map(Speed).ok_or_else(|| format!("not a number from {} to {}", SPEEDS.start(), SPEEDS.end()))
}

/// `--set`: `net.ipv4.tcp_fin_timeout=15`. A name without dots is one of `net.ipv4.`.
pub fn assignment(text: &str) -> Parsed<(String, String)> {
    let (name, value) = text.split_once('=').ok_or("not KEY=VALUE, such as net.ipv4.tcp_fin_timeout=15")?;
    let (name, value) = (name.trim(), value.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
    if name.is_empty() || value.is_empty() {
        return Err("not KEY=VALUE, such as net.ipv4.tcp_fin_timeout=15".to_owned());
    }
    let name = if name.contains('.') { name.to_owned() } else { format!("net.ipv4.{name}") };
    if !name.starts_with("net.") {
        return Err(
            "only sysctls of a network namespace can be experimented with: their names begin with net."
                .to_owned(),
        );
    }
    Ok((name, value))
}

/// `--ring-size`: bytes, with K, M or G for powers of 1024.
pub fn ring_size(text: &str) -> Parsed<u32> {
    let example = "a power of two from 64K to 1G, such as 8M";
    let (number, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) || number.is_empty() {
        return Err(format!("not a size; give {example}"));
    }
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if !(RING_MIN_BYTES..=RING_MAX_BYTES).contains(&bytes) => {
            Err(format!("out of range; give {example}"))
        }
        None => Err(format!("out of range; give {example}")),
        Some(bytes) if !bytes.is_power_of_two() => Err(format!(
            "the kernel takes powers of two only; the next one is {}",
            size(bytes.next_power_of_two())
        )),
        // At most 2^30, checked above.
        Some(bytes) => u32::try_from(bytes).map_err(|_| format!("out of range; give {example}")),
    }
}

/// Bytes as [`ring_size`] takes them.
fn size(bytes: u64) -> String {
    match bytes {
        bytes if bytes % (1 << 30) == 0 => format!("{}G", bytes >> 30),
        bytes if bytes % (1 << 20) == 0 => format!("{}M", bytes >> 20),
        bytes if bytes % (1 << 10) == 0 => format!("{}K", bytes >> 10),
        bytes => bytes.to_string(),
    }
}

/// A port.
pub fn port(text: &str) -> Parsed<u16> {
    match text.parse::<u16>() {
        Ok(port) if port != 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => Err("not a port number from 1 to 65535".to_owned()),
    }
}

/// A process id.
pub fn pid(text: &str) -> Parsed<u32> {
    match text.parse::<u32>() {
        Ok(pid) if (1..=PID_MAX).contains(&pid) && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(pid),
        _ => Err(format!("not a process id from 1 to {PID_MAX}; --comm takes names")),
    }
}

/// A task name, perhaps with `*`.
pub fn comm(text: &str) -> Parsed<CommPattern> {
    CommPattern::new(text).ok_or_else(|| "empty; give a task name as in /proc/PID/comm".to_owned())
}

/// An address or a network; v4-mapped ones become IPv4, which is how flows show them.
pub fn network(text: &str) -> Parsed<IpNet> {
    let net = if let Ok(ip) = text.parse::<IpAddr>() {
        IpNet::from(ip)
    } else {
        text.parse::<IpNet>().map_err(|_| match text.parse::<std::net::SocketAddr>() {
            Ok(with_port) => format!(
                "an address with a port; give --addr {} --port {}",
                with_port.ip().to_canonical(),
                with_port.port()
            ),
            Err(_) => {
                "not an address or network, such as 10.0.0.5, 10.0.0.0/8 or 2001:db8::/32 (host names are \
                       not looked up)"
                    .to_owned()
            }
        })?
    };
    let net = match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => v6
            .addr()
            .to_ipv4_mapped()
            .and_then(|v4| Ipv4Net::new(v4, v6.prefix_len() - 96).ok())
            .map_or(net, IpNet::V4),
        IpNet::V4(_) | IpNet::V6(_) => net,
    };
    Ok(net.trunc())
}

/// A network namespace; what `readlink /proc/PID/ns/net` prints is an inode number.
pub fn netns(text: &str) -> Parsed<String> {
    let name = text.strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if name.is_empty() || name.contains(['/', '\0']) {
        return Err(
            "not a network namespace: give its name in `ip netns`, its inode number, or the id of a process \
                    in it"
                .to_owned(),
        );
    }
    Ok(name.to_owned())
}

/// The beginning of a container's or pod's id; LXC and nspawn know containers by name.
pub fn container(text: &str) -> Parsed<String> {
    let is_id =
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if is_id { Ok(text.to_owned()) } else { Err("not the id of a container or pod".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_sizes_are_powers_of_two_within_bounds() {
        for (text, bytes) in
            [("65536", 1 << 16), ("64K", 1 << 16), ("8M", 8 << 20), ("8m", 8 << 20), ("1G", 1 << 30)]
        {
            assert_eq!(ring_size(text), Ok(bytes), "{text}");
        }
        assert_eq!(ring_size("5M").unwrap_err(), "the kernel takes powers of two only; the next one is 8M");
        assert_eq!(
            ring_size("100000").unwrap_err(),
            "the kernel takes powers of two only; the next one is 128K"
        );
        for text in ["", "M", "8MB", "8.5M", "-8M", "+8M", "eight", "8 M"] {
            assert!(ring_size(text).unwrap_err().starts_with("not a size"), "{text}");
        }
        for text in ["0", "32K", "2G", "18446744073709551616", "99999999999G"] {
            assert!(ring_size(text).unwrap_err().starts_with("out of range"), "{text}");
        }
    }

    #[test]
    fn networks_are_normalised_as_flows_show_them() {
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.0.0.5", "10.0.0.5/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.5", "10.0.0.5/32"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(network(text).unwrap().to_string(), shown, "{text}");
        }
        assert!(network("[::1]:80").unwrap_err().ends_with("give --addr ::1 --port 80"));
    }

    #[test]
    fn numbers_have_no_sign_and_no_zero() {
        for text in ["+80", "0", "65536", "", " 80", "８０"] {
            assert!(port(text).is_err(), "{text}");
        }
        assert_eq!(port("443"), Ok(443));
        assert_eq!(pid("4194304"), Ok(4_194_304));
        assert!(pid("4194305").is_err() && pid("0").is_err() && pid("+1").is_err());
    }
}
