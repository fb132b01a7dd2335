//! The HTTP thread. It has no privileges, and nothing that clients do holds up the tracer, which runs on another.
//!
//! hyper is used directly: five routes need no router, and the limits below need its connection builder.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::guard::Guard;
use super::office::Office;
use super::pulse::Pulse;
use super::routes::{self, Client};

/// Connections at a time: a handful of Prometheus servers and some people. When another comes the oldest is cut,
/// so that clients that connect and say nothing cannot keep the others out.
const MAX_CONNECTIONS: usize = 128;
/// A request's line and headers in all. Prometheus sends some 600 bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Headers of a request.
const MAX_HEADERS: usize = 64;
/// A TLS handshake, and a request's head from the first wait for it on, are there within this time.
const HEAD_WITHIN: Duration = Duration::from_secs(20);
/// A connection is closed after the answer that is being given at this age: however slowly a client reads, it is
/// rid of within this time and the next.
const LIFETIME: Duration = Duration::from_secs(60);
/// What is being answered may take so much longer.
const GRACE: Duration = Duration::from_secs(10);
/// The same when the program ends.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// After an accept() that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server that is bound and not started.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<TcpListener>,
    office: Arc<Office>,
    guard: Arc<Guard>,
}

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Binds every address.
    ///
    /// # Errors
    /// Which address could not be bound, and why.
    pub fn bind(addrs: &[SocketAddr], office: Office, guard: Guard) -> Result<Self, (SocketAddr, io::Error)> {
        let bind = |&addr: &SocketAddr| {
            let listener = TcpListener::bind(addr).map_err(|error| (addr, error))?;
            listener.set_nonblocking(true).map_err(|error| (addr, error))?;
            Ok(listener)
        };
        let listeners = addrs.iter().map(bind).collect::<Result<_, _>>()?;
        Ok(Self { listeners, office: Arc::new(office), guard: Arc::new(guard) })
    }

    /// Where it listens: with the port that was chosen, where it was left open.
    #[must_use]
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Whether clients must speak TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.guard.tls().is_some()
    }

    /// What the tracer tells its state to.
    #[must_use]
    pub fn pulse(&self) -> &Arc<Pulse> {
        self.office.pulse()
    }

    /// Starts the thread. It inherits the privileges of the calling one.
    ///
    /// # Errors
    /// When there is no thread or no event loop to be had.
    pub fn start(self) -> anyhow::Result<Running> {
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot set up the event loop of the HTTP thread")?;
        let thread = thread::Builder::new()
            .name("http".to_owned())
            .spawn(move || runtime.block_on(self.serve(stopped)))
            .context("cannot start the HTTP thread")?;
        Ok(Running { stop, thread })
    }

    async fn serve(self, stopped: watch::Receiver<bool>) {
        let mut accepting = Vec::new();
        for listener in self.listeners {
            // Nonblocking, and inside of the runtime: there is nothing that could fail.
            if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
                let (office, guard) = (Arc::clone(&self.office), Arc::clone(&self.guard));
                accepting.push(tokio::spawn(accept(listener, office, guard, stopped.clone())));
            }
        }
        for task in accepting {
            let _ = task.await;
        }
    }
}

impl Running {
    /// True when the thread has ended by itself.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Accepts no more, answers what was asked, and ends.
    pub fn stop(self) {
        // The thread may be gone.
        let _ = self.stop.send(true);
        let _ = self.thread.join();
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    office: Arc<Office>,
    guard: Arc<Guard>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopped.wait_for(|&stopped| stopped) => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if connections.len() >= MAX_CONNECTIONS {
            connections.retain(|connection| !connection.is_finished());
        }
        if connections.len() >= MAX_CONNECTIONS
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        let (office, guard, stopped) = (Arc::clone(&office), Arc::clone(&guard), stopped.clone());
        let task = tokio::spawn(async move {
            // Small answers go at once.
            let _ = stream.set_nodelay(true);
            match guard.tls() {
                None => answer(stream, peer, office, guard, stopped).await,
                Some(acceptor) => {
                    if let Ok(Ok(stream)) = timeout(HEAD_WITHIN, acceptor.accept(stream)).await {
                        answer(stream, peer, office, guard, stopped).await;
                    }
                }
            }
        });
        connections.push_back(task.abort_handle());
    }
    drop(listener);
    let end = tokio::time::Instant::now() + STOP_GRACE;
    while connections.iter().any(|connection| !connection.is_finished()) && tokio::time::Instant::now() < end
    {
        sleep(Duration::from_millis(10)).await;
    }
}

/// Answers the requests of one connection. What a client does wrong ends its connection and is nobody's failure.
pub(crate) async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    office: Arc<Office>,
    guard: Arc<Guard>,
    mut stopped: watch::Receiver<bool>,
) {
    let service = service_fn(|request| {
        let client = Client { peer, office: Arc::clone(&office), guard: Arc::clone(&guard) };
        async move { Ok::<_, Infallible>(routes::respond(&request, &client).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let grace = tokio::select! {
        _ = &mut connection => return,
        () = sleep(LIFETIME) => GRACE,
        _ = stopped.wait_for(|&stopped| stopped) => STOP_GRACE,
    };
    connection.as_mut().graceful_shutdown();
    let _ = timeout(grace, connection).await;
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
