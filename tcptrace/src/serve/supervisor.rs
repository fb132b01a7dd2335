//! What systemd is told (`sd_notify(3)`): ready, alive, stopping. Does nothing under any other supervisor.

use std::env;
use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The service manager that started this process.
#[derive(Debug, Default)]
pub struct Supervisor {
    socket: Option<UnixDatagram>,
    /// A sign of life is due at least so often.
    watchdog: Option<Duration>,
    last: Option<Instant>,
}

impl Supervisor {
    /// Finds it by NOTIFY_SOCKET and WATCHDOG_USEC.
    #[must_use]
    pub fn from_environment() -> Self {
        let Some(socket) = env::var_os("NOTIFY_SOCKET").and_then(connect) else { return Self::default() };
        let usec = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok());
        // Half of it, as sd_watchdog_enabled(3) advises.
        let watchdog = usec.map(|usec| Duration::from_micros(usec / 2));
        Self { socket: Some(socket), watchdog, last: None }
    }

    /// Tracing has begun and requests are answered.
    pub fn ready(&self) {
        self.say("READY=1\nSTATUS=tracing");
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// The tracer turns.
    pub fn alive(&mut self, now: Instant) {
        let Some(every) = self.watchdog else { return };
        if self.last.is_none_or(|last| now - last >= every) {
            self.last = Some(now);
            self.say("WATCHDOG=1");
        }
    }

    fn say(&self, words: &str) {
        if let Some(socket) = &self.socket {
            // A supervisor that does not listen is no reason to stop measuring.
            let _ = socket.send(words.as_bytes());
        }
    }
}

/// A path, or with `@` in front a name in the abstract namespace.
fn connect(name: OsString) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    let addr = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name).ok()?,
        None => SocketAddr::from_pathname(&name).ok()?,
    };
    // A full queue must not hold the tracer up.
    socket.set_nonblocking(true).ok()?;
    socket.connect_addr(&addr).ok()?;
    Some(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_of_life_are_sent_as_often_as_due() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("notify");
        let server = UnixDatagram::bind(&path).expect("bound");
        server.set_nonblocking(true).expect("nonblocking");
        let mut supervisor = Supervisor {
            socket: connect(path.into_os_string()),
            watchdog: Some(Duration::from_secs(5)),
            last: None,
        };
        supervisor.ready();
        let now = Instant::now();
        supervisor.alive(now);
        supervisor.alive(now + Duration::from_secs(1));
        supervisor.alive(now + Duration::from_secs(5));
        let mut heard = Vec::new();
        let mut buffer = [0; 64];
        while let Ok(length) = server.recv(&mut buffer) {
            heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        assert_eq!(heard, ["READY=1\nSTATUS=tracing", "WATCHDOG=1", "WATCHDOG=1"]);
    }
}
