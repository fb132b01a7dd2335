//! Writes a recording on a thread of its own: the collector formats, and never waits for a disk unless the disk
//! is slower than the network for seconds.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use super::{Footer, Header, Line, row};
use crate::engine::Input;
use crate::event::{Event, MonoNs};

/// Bytes that are handed to the thread at once: large enough that handing over costs nothing per event.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that may wait for the disk: 16 MiB, a second of the busiest host. Beyond it the collector waits, the
/// ring takes up the events, and what does not fit there is counted as loss.
const CHUNKS: usize = 64;
/// What a kill may cost at most.
const FLUSH_EVERY_NS: u64 = 500_000_000;
/// zstd's fastest proper level: a third faster than the default and a tenth larger on these rows.
const ZSTD_LEVEL: i32 = 1;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Events.
    pub events: u64,
    /// Bytes of text.
    pub text_bytes: u64,
    /// Bytes in the file.
    pub file_bytes: u64,
}

/// Creates the file of a recording, which must not exist unless `overwrite`. To be called while privileges are
/// still there; [`Recorder::start`] when tracing has begun.
///
/// # Errors
/// When the file cannot be created, or exists.
pub fn create(path: &Path, overwrite: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true);
    if overwrite {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    options.open(path)
}

/// A recording that is being made.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    waiting: String,
    chunks: Option<SyncSender<Vec<u8>>>,
    thread: Option<JoinHandle<io::Result<u64>>>,
    written: Written,
    flushed: MonoNs,
}

impl Recorder {
    /// Begins to write to a file that [`create`] made.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(path: &Path, file: File, header: &Header) -> io::Result<Self> {
        let compress = path.extension().is_some_and(|extension| extension == "zst");
        let (chunks, receiver) = sync_channel(CHUNKS);
        let thread = thread::Builder::new().name("recorder".to_owned()).spawn(move || {
            if compress { write_zstd(file, &receiver) } else { write_plain(file, &receiver) }
        })?;
        let mut recorder = Self {
            path: path.to_owned(),
            waiting: String::with_capacity(CHUNK_BYTES + (4 << 10)),
            chunks: Some(chunks),
            thread: Some(thread),
            written: Written::default(),
            flushed: header.started,
        };
        recorder.line(&Line::Header(header.clone()))?;
        recorder.flush(header.started)?;
        Ok(recorder)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was written so far; `file_bytes` is known at the end only.
    #[must_use]
    pub fn written(&self) -> Written {
        self.written
    }

    /// Adds an event.
    ///
    /// # Errors
    /// What went wrong with the file since the last call.
    pub fn event(&mut self, event: &Event) -> io::Result<()> {
        row::write(event, &mut self.waiting).map_err(io::Error::other)?;
        self.written.events += 1;
        if self.waiting.len() >= CHUNK_BYTES { self.hand_over() } else { Ok(()) }
    }

    /// Adds any input.
    ///
    /// # Errors
    /// What went wrong with the file since the last call.
    pub fn input(&mut self, input: &Input) -> io::Result<()> {
        let line = match input {
            Input::Event(event) => return self.event(event),
            Input::InventoryBegins { at } => Line::InventoryBegins { at: *at },
            Input::Inventory(inventory) => Line::Inventory(inventory.clone()),
            Input::Loss(loss) => Line::Loss(*loss),
            Input::Tick { at } => Line::Tick { at: *at },
        };
        self.line(&line)
    }

    /// To be called now and then: what waits for half a second goes to the file.
    ///
    /// # Errors
    /// What went wrong with the file since the last call.
    pub fn turn(&mut self, now: MonoNs) -> io::Result<()> {
        if now.saturating_sub(self.flushed) >= FLUSH_EVERY_NS { self.flush(now) } else { Ok(()) }
    }

    fn flush(&mut self, now: MonoNs) -> io::Result<()> {
        self.flushed = now;
        if self.waiting.is_empty() { Ok(()) } else { self.hand_over() }
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        self.waiting.push_str(&serde_json::to_string(line)?);
        self.waiting.push('\n');
        if self.waiting.len() >= CHUNK_BYTES { self.hand_over() } else { Ok(()) }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.waiting, String::with_capacity(CHUNK_BYTES + (4 << 10)));
        self.written.text_bytes += chunk.len() as u64;
        match &self.chunks {
            Some(chunks) if chunks.send(chunk.into_bytes()).is_ok() => Ok(()),
            // The thread ended: with an error, because nothing else ends it while this sends.
            _ => Err(self.join().err().unwrap_or_else(|| io::Error::other("the recording has ended"))),
        }
    }

    fn join(&mut self) -> io::Result<u64> {
        self.chunks = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the recorder's thread panicked")),
            None => Err(io::Error::other("the recording has ended")),
        }
    }

    /// Writes the footer and waits until everything is in the file.
    ///
    /// # Errors
    /// When the file did not take it.
    pub fn finish(mut self, footer: &Footer) -> io::Result<Written> {
        self.line(&Line::Footer(Footer { events: self.written.events, ..footer.clone() }))?;
        self.flush(footer.ended)?;
        let file_bytes = self.join()?;
        Ok(Written { file_bytes, ..self.written })
    }
}

/// A recorder that is dropped, on an error elsewhere, still writes what it was given; without a footer.
impl Drop for Recorder {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = self.hand_over();
            let _ = self.join();
        }
    }
}

fn write_plain(mut file: File, chunks: &Receiver<Vec<u8>>) -> io::Result<u64> {
    let mut bytes = 0;
    for chunk in chunks {
        file.write_all(&chunk)?;
        bytes += chunk.len() as u64;
        sync(&file)?;
    }
    Ok(bytes)
}

fn write_zstd(file: File, chunks: &Receiver<Vec<u8>>) -> io::Result<u64> {
    let mut encoder = zstd::Encoder::new(file, ZSTD_LEVEL)?;
    for chunk in chunks {
        encoder.write_all(&chunk)?;
        // Ends the block, so that a reader can decode everything up to here.
        encoder.flush()?;
        sync(encoder.get_ref())?;
    }
    let file = encoder.finish()?;
    sync(&file)?;
    Ok(file.metadata()?.len())
}

/// So that not even a crash of the whole machine costs more than the last second. Pipes and devices, which
/// cannot be synced, are written all the same.
fn sync(file: &File) -> io::Result<()> {
    match file.sync_data() {
        Err(error) if error.kind() != io::ErrorKind::InvalidInput => Err(error),
        _ => Ok(()),
    }
}
