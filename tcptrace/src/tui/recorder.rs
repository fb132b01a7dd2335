//! The recording that a key begins and ends while tracing goes on.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use jiff::Zoned;

use crate::engine::{Engine, Input};
use crate::event::{Event, MonoNs};
use crate::inventory::worker::{Answer, Worker};
use crate::recording::{NamedNamespace, Session, Written, session};
use crate::views::human;

use super::files;
use super::view::Recording;

/// Compressed: a recording of a busy host grows by a megabyte a second otherwise.
const EXTENSION: &str = "jsonl.zst";

/// What the inventory's thread prepares.
type Prepared = io::Result<(PathBuf, File, Vec<NamedNamespace>)>;

/// See the module.
#[derive(Debug, Default)]
pub struct Recorder {
    preparing: Option<Answer<Prepared>>,
    session: Option<(Session, MonoNs)>,
    /// A recording begins with a dump, which has yet to be asked for.
    wants_dump: bool,
}

impl Recorder {
    /// A recording is being made, or about to be.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.session.is_some() || self.preparing.is_some()
    }

    /// Begins one: `worker` has the privileges to list namespaces, `maker` those to make files.
    pub fn begin(&mut self, worker: &Worker, maker: Worker, now: Zoned) {
        self.preparing = Some(worker.ask(move || {
            let namespaces = session::namespaces().map_err(io::Error::other)?;
            let (path, file) = files::create_by(&maker, "recording", EXTENSION, now)?;
            Ok((path, file, namespaces))
        }));
    }

    /// What is being recorded.
    #[must_use]
    pub fn state(&self) -> Option<Recording> {
        let (session, since) = self.session.as_ref()?;
        Some(Recording {
            path: files::shown(session.path()),
            events: session.written().events,
            since: *since,
        })
    }

    /// Takes an event.
    pub fn event(&mut self, event: &Event) {
        if let Some((session, _)) = &mut self.session {
            session.event(event);
        }
    }

    /// Takes any other input. An error ends the recording, not the trace.
    pub fn input(&mut self, input: &Input) -> Option<String> {
        let (session, _) = self.session.as_mut()?;
        let result = session.input(input);
        self.check(result)
    }

    /// Whether a dump shall be taken for it: once.
    pub fn wants_dump(&mut self) -> bool {
        std::mem::take(&mut self.wants_dump)
    }

    /// To be called now and then; what there is to say about it.
    ///
    /// # Errors
    /// Why there is no recording, or none any more, in words.
    pub fn turn(&mut self, engine: &Engine) -> Result<Option<String>, String> {
        if let Some(prepared) = self.preparing.as_mut().and_then(Answer::take) {
            self.preparing = None;
            let begun = prepared
                .map_err(io::Error::other)
                .and_then(|prepared| prepared)
                .and_then(|(path, file, namespaces)| Session::start(&path, file, engine, namespaces));
            let session = begun.map_err(|error| format!("cannot record: {error}"))?;
            let path = files::shown(session.path());
            self.session = Some((session, engine.now()));
            self.wants_dump = true;
            return Ok(Some(format!("recording to {path}; r ends it")));
        }
        let Some((session, _)) = &mut self.session else { return Ok(None) };
        let result = session.turn(engine);
        self.check(result).map_or(Ok(None), Err)
    }

    fn check(&mut self, result: io::Result<()>) -> Option<String> {
        let error = result.err()?;
        let path = self.session.take().map(|(session, _)| files::shown(session.path())).unwrap_or_default();
        Some(format!("the recording {path} has ended: {error}; what was written before can be read"))
    }

    /// Ends it; what there is to say about it, `None` where nothing was recorded.
    ///
    /// # Errors
    /// What went wrong with the file, in words.
    pub fn end(&mut self, engine: &Engine) -> Result<Option<String>, String> {
        self.preparing = None;
        let Some((session, _)) = self.session.take() else { return Ok(None) };
        let path = files::shown(session.path());
        let Written { events, file_bytes, .. } =
            session.finish(engine).map_err(|error| format!("cannot write the recording {path}: {error}"))?;
        let events = human::counted(events, "event");
        Ok(Some(format!("{path}: {events}, {}; tcptrace watch --from plays it", human::bytes(file_bytes))))
    }
}
