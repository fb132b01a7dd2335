//! Where a command's events come from: the running kernel, or a recording.

use std::cell::RefCell;
use std::path::Path;

use anyhow::Context as _;

use super::{Advice as _, block_on, trace};
use crate::cli::SourceArgs;
use crate::engine::Engine;
use crate::filter::{Detail, Filter, Resolver, StateSet, parse_line};
use crate::live::{self, Handler};
use crate::recording::{Header, Reader};
use crate::replay;
use crate::settings::recorded::RecordedHost;
use crate::settings::{System, Tracing};
use crate::snapshot::{KeyKind, Meta};
use crate::tracker::Limits;

/// The running kernel, or a recording that was opened.
pub enum Source {
    /// The running kernel.
    Live,
    /// A recording.
    Recording(Box<Opened>),
}

/// A recording that was opened.
pub struct Opened {
    reader: RefCell<Reader>,
    host: RecordedHost,
    filter: Filter,
}

/// What a command wants of its source.
pub struct Wanted<'a> {
    /// Which connections.
    pub filter: &'a Filter,
    /// Keys of the statistics.
    pub by: Option<KeyKind>,
    /// The states that the command is about.
    pub states: StateSet,
    /// What it tells of them.
    pub detail: Detail,
    /// How to trace.
    pub tracing: &'a Tracing,
    /// The longest between two turns of the handler.
    pub tick: std::time::Duration,
}

impl Wanted<'_> {
    /// What the live loop is told.
    #[must_use]
    pub fn options(&self) -> live::Options {
        let options = trace::options(self.filter, self.states, self.detail, self.tracing);
        live::Options { tick: self.tick, ..options }
    }
}

impl Opened {
    /// Another reader of the same recording, at its beginning.
    pub fn reopen(&self) -> anyhow::Result<Reader> {
        open(self.reader.borrow().path())
    }

    /// The host that it was made on.
    pub fn host(&self) -> &RecordedHost {
        &self.host
    }
}

impl Source {
    /// Opens the recording, where one is named. `needs_containers` says that the command's filter, or its keys,
    /// ask for containers.
    pub fn open(args: &SourceArgs, needs_containers: bool) -> anyhow::Result<Self> {
        let Some(path) = &args.from else { return Ok(Self::Live) };
        let reader = open(path)?;
        let mut host = RecordedHost::of_header(path, reader.header());
        if needs_containers || reader.header().filters.contains("--container") {
            host.read_cgroups(open(path)?);
        }
        let filter = parse_line(&reader.header().filters, &host)
            .with_context(|| format!("cannot understand the filters of the recording {}", path.display()))?;
        Ok(Self::Recording(Box::new(Opened { reader: RefCell::new(reader), host, filter })))
    }

    /// What names in filters mean there.
    #[must_use]
    pub fn resolver(&self) -> &dyn Resolver {
        match self {
            Self::Live => &System,
            Self::Recording(opened) => &opened.host,
        }
    }

    /// An engine that knows where its input comes from.
    #[must_use]
    pub fn engine(&self, wanted: &Wanted<'_>) -> Engine {
        match self {
            Self::Live => trace::engine(wanted.filter, wanted.by),
            Self::Recording(opened) => {
                let reader = opened.reader.borrow();
                let meta = meta(reader.path(), reader.header(), wanted.filter);
                let mut engine = Engine::new(meta, wanted.filter.clone(), wanted.by, Limits::default());
                engine.set_recorded_filter(opened.filter.clone());
                engine
            }
        }
    }

    /// Traces, or replays, to the end.
    pub fn run(
        &self,
        engine: &mut Engine,
        wanted: &Wanted<'_>,
        handler: &mut impl Handler,
    ) -> anyhow::Result<()> {
        match self {
            Self::Live => {
                let options = wanted.options();
                block_on(async { live::run(&options, engine, handler).await.map(|_| ()) })?;
                trace::note_gone(engine, wanted.filter);
                Ok(())
            }
            Self::Recording(opened) => replay::run(&mut opened.reader.borrow_mut(), engine, handler),
        }
    }

    /// Names the containers of cgroups.
    pub fn containers(&self) -> Box<dyn Fn(u64) -> Option<String> + '_> {
        match self {
            Self::Live => Box::new(trace::live_containers()),
            Self::Recording(opened) => Box::new(|id| opened.host.container_of(id)),
        }
    }
}

fn open(path: &Path) -> anyhow::Result<Reader> {
    Reader::open(path).advise("--from takes a file that `tcptrace record` has made")
}

fn meta(path: &Path, header: &Header, filter: &Filter) -> Meta {
    let own = filter.to_string();
    let filters = [header.filters.as_str(), own.as_str()].into_iter().filter(|text| !text.is_empty());
    Meta {
        wall: header.wall,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        host: header.host.clone(),
        kernel: header.kernel.clone(),
        hz: header.hz,
        sysctls: header.sysctls.clone(),
        recording: Some(crate::text::escape(path.as_os_str().as_encoded_bytes()).into_owned()),
        filters: filters.collect::<Vec<_>>().join(" "),
        ..Meta::default()
    }
}
