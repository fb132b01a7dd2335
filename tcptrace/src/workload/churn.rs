//! Connections as fast as the machine can make them, or so many a second: for benchmarks.
//!
//! Bare, each thread plays both ends of its connections: on loopback connect() has completed when it returns, so no
//! thread ever waits for another and every core is saturated by TCP itself. Served, each client has a server in a
//! thread of its own, which reads a request and answers it, as the least that any service does; then a connection
//! costs what it costs with the wake-ups, reads and writes that come with it. The process makes its own
//! [`Sandbox`], says which, waits for a line on standard input, and prints one line of JSON when it has made
//! its connections. The namespace and what is in TIME_WAIT there stay until standard input is closed.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::role::{Role, RoleArgs};
use crate::sandbox::Sandbox;

/// Destination addresses per thread: times 64512 local ports, more four-tuples than a run can leave in
/// TIME_WAIT.
const DESTINATIONS: u64 = 64;
/// Where so many a second are asked for, those of this time are made in one go: sleeping before each of them would
/// cost more than they do.
const BURST: Duration = Duration::from_millis(2);

/// Bytes of a request and of its answer: a line or two of headers, a small page.
const REQUEST: [u8; 128] = [b'?'; 128];
const ANSWER: [u8; 1024] = [b'!'; 1024];

/// Runs for `--hold-ms` after the starting line, or until `--count` connections a thread are made; the steady role
/// makes `--rate` a second in all.
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
    let per_thread = (args.role == Role::Steady).then(|| args.rate / f64::from(args.threads.max(1)));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..args.threads)
            .map(|index| {
                let deadline = Instant::now() + args.hold;
                scope.spawn(move || match args.served {
                    true => serve_until(deadline, args.count, index),
                    false => churn_until(deadline, args.count, index, per_thread),
                })
            })
            .collect();
        threads.into_iter().try_fold(0, |sum, thread| {
            let made = thread.join().map_err(|_| io::Error::other("a churn thread panicked"))?;
            Ok(sum + made?)
        })
    })
}

/// Makes connections, at most `per_second`, and returns how many. What a busy machine has missed is made up for.
fn churn_until(deadline: Instant, most: u64, index: u16, per_second: Option<f64>) -> io::Result<u64> {
    let begun = Instant::now();
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let port = listener.local_addr()?.port();
    for made in 0..most {
        // The clock is read once in 64 connections.
        if made % 64 == 0 && Instant::now() >= deadline {
            return Ok(made);
        }
        if let Some(rate) = per_second {
            let due = begun + Duration::from_secs_f64(made as f64 / rate);
            let early = due.min(deadline).saturating_duration_since(Instant::now());
            if early >= BURST {
                thread::sleep(early);
            }
        }
        let client = TcpStream::connect((destination(index, made), port))?;
        let (server, _) = listener.accept()?;
        drop(client);
        drop(server);
    }
    Ok(most)
}

/// The same with a server that is asked and answers.
fn serve_until(deadline: Instant, most: u64, thread: u16) -> io::Result<u64> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let port = listener.local_addr()?.port();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| answer(&listener, &is_over));
        let asked = ask_until(deadline, most, thread, port);
        is_over.store(true, Ordering::Relaxed);
        // Wakes the server, which then sees that it is over.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, port)));
        server.join().map_err(|_| io::Error::other("a serving thread panicked"))??;
        asked
    })
}

fn ask_until(deadline: Instant, most: u64, thread: u16, port: u16) -> io::Result<u64> {
    let mut answer = ANSWER;
    for made in 0..most {
        if made % 64 == 0 && Instant::now() >= deadline {
            return Ok(made);
        }
        let mut client = TcpStream::connect((destination(thread, made), port))?;
        client.write_all(&REQUEST)?;
        client.read_exact(&mut answer)?;
    }
    Ok(most)
}

fn answer(listener: &TcpListener, is_over: &AtomicBool) -> io::Result<()> {
    let mut request = REQUEST;
    loop {
        let (mut server, _) = listener.accept()?;
        if is_over.load(Ordering::Relaxed) {
            return Ok(());
        }
        server.read_exact(&mut request)?;
        server.write_all(&ANSWER)?;
        // The client closes first.
        while server.read(&mut request)? != 0 {}
    }
}

/// Another one for each connection in turn, and for each thread.
fn destination(thread: u16, made: u64) -> Ipv4Addr {
    let [high, low] = thread.to_be_bytes();
    Ipv4Addr::new(127, 1 + high, low, u8::try_from(1 + made % DESTINATIONS).unwrap_or(1))
}
