//! The tracer's side: folds what comes in, and answers what the HTTP thread asks between two batches of events.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::sync::{Notify, mpsc, oneshot};

use super::aggregate::Aggregate;
use super::closers::Pair;
use super::findings::{self, Findings, Surveyed};
use super::http::Server;
use super::labels::Who;
use super::pulse::Pulse;
use super::supervisor::Supervisor;
use super::view::View;
use crate::engine::Engine;
use crate::inventory::cgroup::Cgroups;
use crate::inventory::clock;
use crate::inventory::worker::{Answer, Worker};
use crate::leaks::{self, History};
use crate::live::{DumpOf, Handler};
use crate::net::State;
use crate::outcome::Outcome;
use crate::snapshot::Snapshot;

/// Questions that may wait. The HTTP thread asks one of a kind at a time.
pub const MAX_ASKS: usize = 16;
/// How long a scrape waits for holders that are being looked up; after that it gets the last ones.
const PATIENCE: Duration = Duration::from_secs(1);
/// cgroups are looked up at most so often.
const NAMING_EVERY: Duration = Duration::from_secs(1);

/// A question of the HTTP thread.
#[derive(Debug)]
pub enum Ask {
    /// The metrics of this moment.
    View(oneshot::Sender<Arc<View>>),
    /// The statistics of this moment. Costs time in proportion to what is open.
    Snapshot(oneshot::Sender<Arc<Snapshot>>),
}

/// What the tracer's side needs to know.
#[derive(Debug)]
pub struct Terms {
    /// Which connections, and which of them leak.
    pub leaks: leaks::Terms,
    /// Label sets kept apart at most, in each metric that has them.
    pub max_series: usize,
    /// Holders are looked up at most so often.
    pub inventory_every: Duration,
}

/// A job on the inventory thread. Its result is in the slot before the tracer is woken.
#[derive(Debug)]
struct Job<T> {
    slot: Arc<Mutex<Option<T>>>,
    answer: Answer<()>,
}

impl<T: Send + 'static> Job<T> {
    fn begin(worker: &Worker, wake: &Arc<Notify>, work: impl FnOnce() -> T + Send + 'static) -> Self {
        let slot = Arc::new(Mutex::new(None));
        let (result, wake) = (Arc::clone(&slot), Arc::clone(wake));
        let answer = worker.ask(move || {
            let done = work();
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
            wake.notify_one();
        });
        Self { slot, answer }
    }

    /// The result, once; an error when there will be none.
    fn poll(&self) -> anyhow::Result<Option<T>> {
        // In this order: what is ready has filled the slot.
        let is_over = self.answer.is_ready();
        let result = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        if is_over && result.is_none() {
            bail!("the inventory thread has ended");
        }
        Ok(result)
    }
}

/// A scrape that waits.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    answer: oneshot::Sender<Arc<View>>,
}

/// The handler of `serve`.
pub struct Desk {
    terms: Arc<Terms>,
    wake: Arc<Notify>,
    pulse: Arc<Pulse>,
    supervisor: Supervisor,
    /// Until tracing has begun.
    server: Option<Server>,
    running: Option<super::http::Running>,
    asks: mpsc::Receiver<Ask>,
    worker: Option<Worker>,
    aggregate: Aggregate,
    waiting: Vec<Waiting>,
    survey: Option<Job<Result<Surveyed, String>>>,
    surveyed: Option<Instant>,
    history: History,
    findings: Option<Arc<Findings>>,
    dump_wanted: bool,
    cgroups: Arc<Mutex<Cgroups>>,
    naming: Option<Job<Vec<(Pair, Who)>>>,
    named: Option<Instant>,
}

impl Desk {
    /// `server` is started once tracing has begun.
    #[must_use]
    pub fn new(terms: Terms, wake: Arc<Notify>, server: Server, asks: mpsc::Receiver<Ask>) -> Self {
        let aggregate = Aggregate::new(terms.max_series);
        Self {
            terms: Arc::new(terms),
            wake,
            pulse: Arc::clone(server.pulse()),
            supervisor: Supervisor::from_environment(),
            server: Some(server),
            running: None,
            asks,
            worker: None,
            aggregate,
            waiting: Vec::new(),
            survey: None,
            surveyed: None,
            history: History::default(),
            findings: None,
            dump_wanted: false,
            cgroups: Arc::default(),
            naming: None,
            named: None,
        }
    }

    /// Ends the HTTP thread in good order: what is being answered is answered.
    pub fn finish(mut self) {
        self.supervisor.stopping();
        if let Some(running) = self.running.take() {
            running.stop();
        }
    }

    /// Gives names to the cgroups that have turned up.
    fn name_closers(&mut self, engine: &Engine, now: Instant) -> anyhow::Result<()> {
        if let Some(job) = &self.naming {
            let Some(named) = job.poll()? else { return Ok(()) };
            self.aggregate.closers.name(named, engine.now());
            self.naming = None;
        }
        let Some(worker) = &self.worker else { return Ok(()) };
        if self.named.is_some_and(|named| now - named < NAMING_EVERY) {
            return Ok(());
        }
        let unnamed = self.aggregate.closers.take_unnamed();
        if unnamed.is_empty() {
            return Ok(());
        }
        self.named = Some(now);
        let cgroups = Arc::clone(&self.cgroups);
        self.naming = Some(Job::begin(worker, &self.wake, move || {
            let mut cgroups = cgroups.lock().unwrap_or_else(PoisonError::into_inner);
            let mut name = |pair: Pair| {
                let workload = cgroups.workload(pair.1, clock::monotonic_ns());
                (pair, Who::of(pair.0, workload.as_deref()))
            };
            unnamed.into_iter().map(&mut name).collect()
        }));
        Ok(())
    }

    /// Begins and ends looks at holders, when scrapes wait for one and the last is old enough.
    fn look_up(&mut self, engine: &mut Engine, now: Instant) -> anyhow::Result<()> {
        if let Some(job) = &self.survey {
            let Some(surveyed) = job.poll()? else { return Ok(()) };
            self.survey = None;
            match surveyed {
                Ok(surveyed) => {
                    let Terms { leaks, max_series, .. } = &*self.terms;
                    let findings =
                        findings::complete(surveyed, engine, leaks, &mut self.history, *max_series);
                    self.findings = Some(Arc::new(findings));
                }
                Err(why) => engine.note(why),
            }
        }
        let is_due = self.surveyed.is_none_or(|last| now - last >= self.terms.inventory_every);
        if let (true, false, Some(worker)) = (is_due, self.waiting.is_empty(), &self.worker) {
            self.surveyed = Some(now);
            self.dump_wanted = true;
            let (terms, ports) = (Arc::clone(&self.terms), findings::ports_in_use(engine));
            let job = Job::begin(worker, &self.wake, move || findings::survey(&terms.leaks.filter, &ports));
            self.survey = Some(job);
        }
        Ok(())
    }

    fn view(&self, engine: &Engine) -> View {
        let (closers, closers_unknown, closers_other) = self.aggregate.closers.series();
        View {
            now: engine.now(),
            wall: engine.meta().wall,
            totals: self.aggregate.totals(),
            closers,
            closers_unknown,
            closers_other,
            sockets: self.sockets(engine),
            loss: engine.loss(),
            events: engine.events(),
            findings: self.findings.clone(),
            kernel: engine.meta().kernel.clone(),
        }
    }

    /// Without a filter the tracker's counts; with one what was counted at the last look.
    fn sockets(&self, engine: &Engine) -> Vec<(State, u64)> {
        let filter = &self.terms.leaks.filter;
        let shown = State::ALL
            .into_iter()
            .filter(|&state| ![State::Close, State::Listen, State::NewSynRecv].contains(&state))
            .filter(|&state| filter.states.contains(state));
        if engine.meta().filters.is_empty() {
            let open = engine.open_by_state();
            return shown.map(|state| (state, open(state))).collect();
        }
        let Some(findings) = &self.findings else { return Vec::new() };
        shown.map(|state| (state, findings.sockets.get(&state).copied().unwrap_or(0))).collect()
    }

    fn answer(&mut self, engine: &Engine, now: Instant) {
        let is_looking = self.survey.is_some();
        let (ready, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| !is_looking || now - waiting.since >= PATIENCE);
        self.waiting = waiting;
        if ready.is_empty() {
            return;
        }
        let view = Arc::new(self.view(engine));
        for waiting in ready {
            // Whoever asked may have gone.
            let _ = waiting.answer.send(Arc::clone(&view));
        }
    }
}

impl Handler for Desk {
    fn inventory(&mut self, worker: &Worker) -> anyhow::Result<()> {
        self.worker = Some(worker.clone());
        *self.cgroups.lock().unwrap_or_else(PoisonError::into_inner) = Cgroups::new();
        Ok(())
    }

    fn started(&mut self, _engine: &Engine) -> anyhow::Result<()> {
        // Only now: the thread inherits what is left of the privileges, which is nothing.
        let server = self.server.take().context("the server was started twice")?;
        self.running = Some(server.start()?);
        self.supervisor.ready();
        Ok(())
    }

    fn outcome(&mut self, outcome: &Outcome) {
        self.aggregate.record(outcome);
    }

    fn wants_dump(&mut self) -> Option<DumpOf> {
        std::mem::take(&mut self.dump_wanted).then_some(DumpOf::Sockets)
    }

    fn turn(&mut self, engine: &mut Engine) -> anyhow::Result<ControlFlow<()>> {
        let now = Instant::now();
        self.pulse.beat(now, engine.events(), engine.loss());
        self.supervisor.alive(now);
        if self.running.as_ref().is_some_and(super::http::Running::has_ended) {
            bail!("the HTTP thread has ended");
        }
        while let Ok(ask) = self.asks.try_recv() {
            match ask {
                Ask::View(answer) => self.waiting.push(Waiting { since: now, answer }),
                Ask::Snapshot(answer) => {
                    let _ = answer.send(Arc::new(engine.snapshot(&|_| None)));
                }
            }
        }
        self.name_closers(engine, now)?;
        self.look_up(engine, now)?;
        self.answer(engine, now);
        Ok(ControlFlow::Continue(()))
    }
}
