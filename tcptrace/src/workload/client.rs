//! Clients: each a way of ending a connection.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::role::RoleArgs;

/// What a client sends where an answer is expected.
const REQUEST: &[u8] = b"GET\n";
/// What the leaking server is sent and never reads.
const UPLOAD: [u8; 3200] = [b'x'; 3200];
/// How long a client waits for a server that says nothing: longer than any `--hold` in use.
const PATIENCE: Duration = Duration::from_secs(120);
/// Half-closed connections at a time, each a thread.
const HALF_CLOSED_MAX: usize = 256;

/// Active close after a complete exchange: FIN_WAIT1, FIN_WAIT2, TIME_WAIT. The socket is closed only when the
/// server's EOF has come, so that nothing of it is ever an orphan: those are [`close_without_waiting`]'s.
pub(super) fn ask_and_close_first(args: &RoleArgs) -> io::Result<()> {
    for () in args.pace() {
        report(ask(args.at).and_then(|mut stream| {
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new())
        }));
    }
    Ok(())
}

fn ask(at: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = connect(at)?;
    stream.write_all(REQUEST)?;
    stream.read_exact(&mut [0; REQUEST.len()])?;
    Ok(stream)
}

/// close() against a server that does not close: FIN_WAIT2 stays behind without a process.
pub(super) fn close_without_waiting(args: &RoleArgs) -> io::Result<()> {
    for () in args.pace() {
        report(connect(args.at).map(drop));
    }
    Ok(())
}

/// shutdown(SHUT_WR), then read to the end: FIN_WAIT2 with a process, as long as the server likes.
pub(super) fn shut_down_and_read_on(args: &RoleArgs) -> io::Result<()> {
    let waiting = Arc::new(AtomicUsize::new(0));
    for () in args.pace() {
        if waiting.load(Ordering::Relaxed) >= HALF_CLOSED_MAX {
            continue;
        }
        waiting.fetch_add(1, Ordering::Relaxed);
        let (at, waiting) = (args.at, Arc::clone(&waiting));
        thread::Builder::new().spawn(move || {
            report(send_all_then_read_all(at));
            waiting.fetch_sub(1, Ordering::Relaxed);
        })?;
    }
    while waiting.load(Ordering::Relaxed) > 0 {
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn send_all_then_read_all(at: SocketAddr) -> io::Result<()> {
    let mut stream = connect(at)?;
    stream.write_all(REQUEST)?;
    stream.shutdown(Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}

/// SO_LINGER with 0 s: close() sends RST and no state remains.
pub(super) fn close_by_reset(args: &RoleArgs) -> io::Result<()> {
    for () in args.pace() {
        report(connect(args.at).and_then(|mut stream| {
            stream.write_all(REQUEST)?;
            Ok(rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?)
        }));
    }
    Ok(())
}

/// The three services of the leaking server in turn; each visit ends in an ordinary close().
pub(super) fn visit_leaky_server(args: &RoleArgs) -> io::Result<()> {
    let services = super::leaky::Services::beginning_at(args.at);
    for ((), visit) in args.pace().zip([0_u8, 1, 2].into_iter().cycle()) {
        report(match visit {
            0 => ask(services.echo).map(drop),
            1 => connect(services.silent).map(drop),
            _ => upload(services.upload),
        });
    }
    Ok(())
}

fn upload(at: SocketAddr) -> io::Result<()> {
    let mut stream = connect(at)?;
    stream.write_all(&UPLOAD)?;
    stream.read_exact(&mut [0; super::leaky::THANKS.len()])
}

fn connect(at: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&at, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// One failed connection is not the end of the traffic, but it is said. Once a second at most: a full table
/// would say it a thousand times.
fn report<T>(outcome: io::Result<T>) {
    use std::sync::Mutex;
    use std::time::Instant;
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    if let Err(error) = outcome
        && let Ok(mut last) = LAST.lock()
        && last.is_none_or(|at| at.elapsed() >= Duration::from_secs(1))
    {
        *last = Some(Instant::now());
        let comm = rustix::thread::name();
        let comm = comm.as_ref().map(|name| name.to_string_lossy()).unwrap_or_default();
        eprintln!("{comm}: connection failed: {error}");
    }
}
