//! Timer events that are nobody's mini: the keepalive timers of idle connections, set and removed again.

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::Result;
use rustix::net::sockopt::{set_socket_keepalive, set_socket_linger};
use rustix::time::{ClockId, clock_gettime};

/// A connection on loopback whose timers can be set.
#[derive(Debug)]
pub struct Foreign {
    client: TcpStream,
    _server: TcpStream,
}

impl Foreign {
    /// Connects.
    pub fn new() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        // It leaves no TIME_WAIT.
        set_socket_linger(&client, Some(std::time::Duration::ZERO))?;
        Ok(Self { client, _server: server })
    }

    /// Sets the timer `times` times (`timer_start`), and removes it as often (`timer_cancel`); CPU nanoseconds that
    /// this took for each of the two.
    pub fn set_and_remove(&self, times: u32) -> Result<f64> {
        let before_ns = thread_cpu_ns();
        for _ in 0..times {
            set_socket_keepalive(&self.client, true)?;
            set_socket_keepalive(&self.client, false)?;
        }
        Ok((thread_cpu_ns() - before_ns) / f64::from(times) / 2.0)
    }
}

/// CPU time of this thread.
fn thread_cpu_ns() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}
