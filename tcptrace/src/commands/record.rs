//! `tcptrace record`: everything that comes in, to a file.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::ops::ControlFlow;

use anyhow::Context as _;

use super::{Advice as _, Exit, block_on, trace};
use crate::cli::RecordArgs;
use crate::engine::{Engine, Input};
use crate::event::Event;
use crate::filter::{Detail, Filter};
use crate::live::{self, Handler};
use crate::recording::{self, Session, Written, session};
use crate::settings::{System, Tracing};
use crate::views::human;

/// Runs the command.
pub fn run(args: &RecordArgs) -> anyhow::Result<Exit> {
    let filter = Filter::from_args(&args.filter, &System)?;
    let tracing = Tracing::from(&args.tracing);
    let file = create(args)?;
    block_on(async {
        let mut engine = trace::engine(&filter, None);
        let options = trace::options(&filter, filter.states, Detail::Transitions, &tracing);
        let mut recording = Recording::new(args, file);
        live::run(&options, &mut engine, &mut recording).await?;
        trace::note_gone(&mut engine, &filter);
        let (path, written) = recording.finish(&engine)?;
        tell(&engine, &path, written)?;
        Ok(trace::exit(&engine, &tracing))
    })
}

fn create(args: &RecordArgs) -> anyhow::Result<File> {
    let path = &args.output;
    let created = recording::create(path, args.overwrite);
    let exists = created.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::AlreadyExists);
    let created = created.with_context(|| format!("cannot create the recording {}", path.display()));
    if exists {
        created.advise("name another file, or give --overwrite to lose what is in it")
    } else {
        created
    }
}

fn tell(engine: &Engine, path: &str, written: Written) -> anyhow::Result<()> {
    let snapshot = engine.snapshot(&|_| None);
    trace::write_summary(&snapshot, engine.notes())?;
    let mut err = anstream::stderr().lock();
    let per_event = written.file_bytes.checked_div(written.events);
    writeln!(
        err,
        "{path}: {}{}",
        human::bytes(written.file_bytes),
        per_event.map_or_else(String::new, |bytes| format!(", {bytes} bytes per event")),
    )?;
    Ok(())
}

struct Recording<'a> {
    args: &'a RecordArgs,
    /// Until the start of tracing.
    file: Option<File>,
    /// From the start of tracing on.
    session: Option<Session>,
    show_progress: bool,
}

impl<'a> Recording<'a> {
    fn new(args: &'a RecordArgs, file: File) -> Self {
        let show_progress = std::io::stderr().is_terminal();
        Self { args, file: Some(file), session: None, show_progress }
    }

    fn check<T>(&self, result: std::io::Result<T>) -> anyhow::Result<T> {
        let path = self.args.output.display();
        result
            .with_context(|| format!("cannot write the recording {path}"))
            .advise("what was written before can be read; make room, or record to another place")
    }

    fn finish(mut self, engine: &Engine) -> anyhow::Result<(String, Written)> {
        let session = self.session.take().context("the recording was never begun")?;
        let path = crate::text::escape(session.path().as_os_str().as_encoded_bytes()).into_owned();
        Ok((path, self.check(session.finish(engine))?))
    }
}

impl Handler for Recording<'_> {
    fn started(&mut self, engine: &Engine) -> anyhow::Result<()> {
        let file = self.file.take().context("the recording was begun twice")?;
        let namespaces = session::namespaces()?;
        self.session = Some(Session::start(&self.args.output, file, engine, namespaces)?);
        Ok(())
    }

    fn event(&mut self, event: &Event) {
        if let Some(session) = &mut self.session {
            session.event(event);
        }
    }

    fn input(&mut self, input: &Input) -> anyhow::Result<()> {
        match &mut self.session {
            Some(session) => {
                let result = session.input(input);
                self.check(result)
            }
            None => Ok(()),
        }
    }

    fn turn(&mut self, engine: &mut Engine) -> anyhow::Result<ControlFlow<()>> {
        let result = self.session.as_mut().map_or(Ok(()), |session| session.turn(engine));
        self.check(result)?;
        if self.show_progress && engine.events() > 0 {
            let elapsed = human::duration(engine.meta().elapsed_ns());
            let written = self.session.as_ref().map(Session::written).unwrap_or_default();
            let mut err = anstream::stderr().lock();
            write!(err, "\r{elapsed}, {}, Ctrl-C ends", human::counted(written.events, "event"))?;
            err.flush()?;
        }
        Ok(ControlFlow::Continue(()))
    }
}
