//! The HTTP thread's side of the questions to the tracer: asks for one answer at a time, gives it to everybody
//! who waits, and keeps it a moment, so that a storm of scrapes costs the tracer ten answers a second.

use std::io::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

use super::desk::Ask;
use super::negotiate::Format;
use super::own::Own;
use super::pulse::Pulse;
use super::view::View;
use super::{protobuf, text};
use crate::snapshot::Snapshot;
use crate::views::json;

/// A view is shown for so long.
const VIEW_LASTS: Duration = Duration::from_millis(100);
/// The statistics are shown for so long: they cost the tracer more.
const SNAPSHOT_LASTS: Duration = Duration::from_secs(5);
/// A tracer that has not answered by then has other worries. Prometheus waits for 10 s by default.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// It takes too long.
    #[error("the tracer does not answer in time")]
    Late,
    /// It has ended.
    #[error("the tracer has ended")]
    Gone,
    /// Holders were not looked up yet, or could not be.
    #[error("sockets and their holders were not listed yet")]
    NotListed,
    /// What was to be written could not be.
    #[error("the answer cannot be written")]
    Unwritable,
}

/// The office.
#[derive(Debug)]
pub struct Office {
    asks: mpsc::Sender<Ask>,
    wake: Arc<Notify>,
    pulse: Arc<Pulse>,
    page: Mutex<Option<(Instant, Arc<Page>)>>,
    report: Mutex<Option<(Instant, Bytes)>>,
}

/// A view and what was written of it so far.
#[derive(Debug)]
struct Page {
    view: Arc<View>,
    own: Own,
    /// By [`Format::ALL`], plain and compressed.
    written: [[OnceLock<Bytes>; 2]; Format::ALL.len()],
}

impl Office {
    /// `wake` makes the tracer look at `asks`.
    #[must_use]
    pub fn new(asks: mpsc::Sender<Ask>, wake: Arc<Notify>, pulse: Arc<Pulse>) -> Self {
        Self { asks, wake, pulse, page: Mutex::default(), report: Mutex::default() }
    }

    /// How the tracer is.
    #[must_use]
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// `/metrics`.
    ///
    /// # Errors
    /// When the tracer does not answer.
    pub async fn metrics(&self, format: Format, compressed: bool) -> Result<Bytes, NoAnswer> {
        Ok(self.page().await?.write(format, compressed))
    }

    /// `/leaks`: the lines of `tcptrace leaks --json`.
    ///
    /// # Errors
    /// When the tracer does not answer, or has not looked yet.
    pub async fn leaks(&self) -> Result<Bytes, NoAnswer> {
        let page = self.page().await?;
        let findings = page.view.findings.as_ref().ok_or(NoAnswer::NotListed)?;
        let mut out = Vec::new();
        json::write_leaks(&findings.leaks, page.view.wall, &mut out).map_err(|_| NoAnswer::Unwritable)?;
        Ok(out.into())
    }

    /// `/report`: the lines of `tcptrace report --json`.
    ///
    /// # Errors
    /// When the tracer does not answer.
    pub async fn report(&self) -> Result<Bytes, NoAnswer> {
        let mut report = self.report.lock().await;
        if let Some((at, bytes)) = &*report
            && at.elapsed() < SNAPSHOT_LASTS
        {
            return Ok(bytes.clone());
        }
        let snapshot: Arc<Snapshot> = self.ask(Ask::Snapshot).await?;
        let mut out = Vec::new();
        json::write_report(&snapshot, &mut out).map_err(|_| NoAnswer::Unwritable)?;
        let bytes = Bytes::from(out);
        *report = Some((Instant::now(), bytes.clone()));
        Ok(bytes)
    }

    async fn page(&self) -> Result<Arc<Page>, NoAnswer> {
        // Held while the answer is waited for: who comes meanwhile gets the same.
        let mut page = self.page.lock().await;
        if let Some((at, page)) = &*page
            && at.elapsed() < VIEW_LASTS
        {
            return Ok(Arc::clone(page));
        }
        let view = self.ask(Ask::View).await?;
        let new = Arc::new(Page { view, own: Own::read(), written: Default::default() });
        *page = Some((Instant::now(), Arc::clone(&new)));
        Ok(new)
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, NoAnswer> {
        let (sender, answer) = oneshot::channel();
        self.asks.try_send(ask(sender)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NoAnswer::Late,
            mpsc::error::TrySendError::Closed(_) => NoAnswer::Gone,
        })?;
        self.wake.notify_one();
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(answer) => answer.map_err(|_| NoAnswer::Gone),
            Err(_) => Err(NoAnswer::Late),
        }
    }
}

impl Page {
    fn write(&self, format: Format, compressed: bool) -> Bytes {
        let index = Format::ALL.iter().position(|&known| known == format).unwrap_or(0);
        let plain = self.written[index][0].get_or_init(|| {
            let families = self.view.families(&self.own);
            match format {
                Format::Text(dialect) => text::write(&families, dialect).into(),
                Format::Protobuf => protobuf::write(&families).into(),
            }
        });
        if !compressed {
            return plain.clone();
        }
        self.written[index][1].get_or_init(|| gzip(plain)).clone()
    }
}

/// Compresses fast rather than well: a tenth of the size is won by the first pass.
fn gzip(plain: &[u8]) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing to a Vec cannot fail.
    let _ = encoder.write_all(plain);
    encoder.finish().unwrap_or_default().into()
}
