//! Connections as fast as the machine can make them, for benchmarks.
//!
//! Each thread plays both ends of its connections: on loopback connect() has completed when it returns, so no
//! thread ever waits for another and every core is saturated by TCP itself. The process makes its own
//! [`Sandbox`], says which, waits for a line on standard input, and prints one line of JSON when it has made
//! its connections. The namespace and what is in TIME_WAIT there stay until standard input is closed.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use super::role::RoleArgs;
use crate::sandbox::Sandbox;

/// Destination addresses per thread: times 64512 local ports, more four-tuples than a run can leave in
/// TIME_WAIT.
const DESTINATIONS: u64 = 64;

/// Runs for `--hold-ms` after the starting line, or until `--count` connections a thread are made.
pub(super) fn run(args: &RoleArgs) -> io::Result<()> {
    let sandbox = Sandbox::new().map_err(io::Error::other)?;
    for (name, value) in [
        ("net.ipv4.ip_local_port_range", "1024 65535"),
        // No overflow: every connection goes through the same states.
        ("net.ipv4.tcp_max_tw_buckets", "8000000"),
        ("net.ipv4.tcp_tw_reuse", "0"),
    ] {
        sandbox.set_sysctl(name, value).map_err(io::Error::other)?;
    }
    println!("{{\"netns\":{}}}", sandbox.netns());
    io::stdin().read_line(&mut String::new())?;

    let start = Instant::now();
    let connections = sandbox.enter(|| churn_on_every_thread(args)).map_err(io::Error::other)??;
    let elapsed = start.elapsed();
    let mut out = io::stdout().lock();
    writeln!(out, "{{\"connections\":{connections},\"elapsed_ns\":{}}}", elapsed.as_nanos())?;
    out.flush()?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

fn churn_on_every_thread(args: &RoleArgs) -> io::Result<u64> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..args.threads)
            .map(|index| scope.spawn(move || churn_until(Instant::now() + args.hold, args.count, index)))
            .collect();
        threads.into_iter().try_fold(0, |sum, thread| {
            let made = thread.join().map_err(|_| io::Error::other("a churn thread panicked"))?;
            Ok(sum + made?)
        })
    })
}

/// Returns the number of connections made.
fn churn_until(deadline: Instant, most: u64, thread: u16) -> io::Result<u64> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let port = listener.local_addr()?.port();
    for made in 0..most {
        // The clock is read once in 64 connections.
        if made % 64 == 0 && Instant::now() >= deadline {
            return Ok(made);
        }
        let [high, low] = thread.to_be_bytes();
        let destination =
            Ipv4Addr::new(127, 1 + high, low, u8::try_from(1 + made % DESTINATIONS).unwrap_or(1));
        let client = TcpStream::connect((destination, port))?;
        let (server, _) = listener.accept()?;
        drop(client);
        drop(server);
    }
    Ok(most)
}
