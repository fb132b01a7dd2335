//! An HTTP server that closes first, as many do, and remembers with whom it spoke.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Result;

/// A loopback address that is not that of everything else.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Body of `/large`, bytes: fits into a receive buffer, and not into those between a proxy and a client that reads
/// nothing.
pub const LARGE_BYTES: usize = 48 << 10;

/// It answers `/small` and `/large` and closes, and `/keep` and does not. Dropping it ends it.
#[derive(Debug)]
pub struct Backend {
    addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    visits: Mutex<Vec<(String, SocketAddr)>>,
    kept: Mutex<Vec<TcpStream>>,
}

impl Backend {
    /// Starts one in the calling thread's namespace.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((ADDRESS, 0))?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let inside = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("backend".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                if inside.stop.load(Ordering::Relaxed) {
                    return;
                }
                // Whoever went away in the middle of it gets no answer.
                let _ = inside.answer(stream);
            }
        })?;
        Ok(Self { addr, shared, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The other ends of the connections that asked for `path`, in order.
    #[must_use]
    pub fn peers(&self, path: &str) -> Vec<SocketAddr> {
        let visits = self.shared.visits.lock().unwrap_or_else(PoisonError::into_inner);
        visits.iter().filter(|(asked, _)| asked == path).map(|(_, peer)| *peer).collect()
    }

    /// Closes what `/keep` left open.
    pub fn close_kept(&self) {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Shared {
    fn answer(&self, mut stream: TcpStream) -> Result<()> {
        let mut request = Vec::new();
        let mut piece = [0; 4096];
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut piece)? {
                0 => return Ok(()),
                len => request.extend_from_slice(&piece[..len]),
            }
        }
        let request = String::from_utf8_lossy(&request);
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let peer = stream.peer_addr()?;
        let body = vec![b'x'; if path == "/large" { LARGE_BYTES } else { 5 }];
        let keeps = path == "/keep";
        // A client that knows the length may close first.
        let head = if keeps {
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())
        } else {
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_owned()
        };
        self.visits.lock().unwrap_or_else(PoisonError::into_inner).push((path, peer));
        stream.write_all(&[head.as_bytes(), &body].concat())?;
        if keeps {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        }
        Ok(())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // A last connection, so that it looks.
        let _ = TcpStream::connect(self.addr);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
