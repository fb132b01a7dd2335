//! Scrapes at a fixed rate, whatever becomes of the ones before: a late answer does not hold the next question up,
//! and the time that a question waited for its turn counts.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// Scrapes under way at once at most.
const THREADS: u32 = 16;
/// An answer that has not come by then has failed, as with Prometheus' own default.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the scrapes ask for in turn.
const ACCEPT: [&str; 3] = [
    "text/plain;version=0.0.4",
    "application/openmetrics-text;version=1.0.0",
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
];
/// In every answer, whatever its format.
const WANTED: &[u8] = b"tcptrace_build_info";

/// What became of the scrapes.
#[derive(Debug, Default)]
pub struct Storm {
    /// From the moment at which each was due to its last byte, milliseconds.
    pub took_ms: Vec<f64>,
    /// Why the others failed.
    pub failures: Vec<String>,
    /// Bytes of the largest answer, its head included.
    pub largest: usize,
    /// From the first question to the last answer.
    pub elapsed: Duration,
}

/// Makes `count` scrapes, so many a second, each on a connection of its own.
pub fn storm(addr: SocketAddr, count: u32, per_second: u32) -> Storm {
    let (next, storm) = (AtomicU32::new(0), Mutex::new(Storm::default()));
    let begun = Instant::now();
    let scrape_in_turn = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let due = begun + Duration::from_secs(1) * number / per_second;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let answer = scrape(addr, ACCEPT[number as usize % ACCEPT.len()]);
            let took = due.elapsed();
            // A scraper that panicked has left nothing half done.
            let mut storm = storm.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match answer {
                Ok(bytes) => {
                    storm.took_ms.push(took.as_secs_f64() * 1e3);
                    storm.largest = storm.largest.max(bytes);
                }
                Err(error) => storm.failures.push(format!("{error:#}")),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(scrape_in_turn);
        }
    });
    let storm = storm.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Storm { elapsed: begun.elapsed(), ..storm }
}

/// One scrape; the bytes of its answer.
fn scrape(addr: SocketAddr, accept: &str) -> Result<usize> {
    let answer = get(addr, "/metrics", accept)?;
    ensure!(answer.windows(WANTED.len()).any(|window| window == WANTED), "an answer without metrics");
    Ok(answer.len())
}

/// An answer with status 200, its head included.
fn get(addr: SocketAddr, path: &str, accept: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| path.to_owned())?;
    let head = answer.split(|&byte| byte == b'\r').next().unwrap_or_default();
    ensure!(head.starts_with(b"HTTP/1.1 200"), "{path}: {}", String::from_utf8_lossy(head));
    Ok(answer)
}

/// The value of a series, written as in the text format; `None` when there is none.
pub fn value(addr: SocketAddr, series: &str) -> Result<Option<f64>> {
    let text = get(addr, "/metrics", ACCEPT[0])?;
    let text = String::from_utf8_lossy(&text);
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.map(|value| value.trim().parse()).transpose().with_context(|| series.to_owned())
}
